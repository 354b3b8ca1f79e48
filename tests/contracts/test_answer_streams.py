"""Answer streams on a real Valkey: whole or broken, in a bounded window, gone when either side is."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator

import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from core.adapters.redis.answer_streams import CHUNK_BYTES, WINDOW_CHUNKS, open_answer_streams
from core.errors.exceptions import Unavailable
from core.ports.answers import AnswerStreams
from core.settings import Settings
from tests.engines import PASSWORD, House
from tests.faults.proxy import Proxy

REDIS_DATABASE = 10
GONE_WITHIN_S = 8.0


async def opened(streams: AnswerStreams) -> None:
    """Wait until Redis answers."""
    async with asyncio.timeout(5):
        while True:
            try:
                async with streams.reading(secrets.token_hex()):
                    return
            except Unavailable:
                await asyncio.sleep(0.01)


@pytest.fixture
def settings(house: House) -> Settings:
    return replace(house.settings, redis=replace(house.settings.redis, database=REDIS_DATABASE))


@pytest.fixture
def proxy(settings: Settings) -> Iterator[Proxy]:
    proxy = Proxy(settings.redis.port)
    yield proxy
    proxy.close()


@pytest.fixture
async def streams(settings: Settings) -> AsyncIterator[AnswerStreams]:
    async with open_answer_streams(settings, {}) as streams:
        await opened(streams)
        yield streams


@pytest.fixture
async def redis(settings: Settings) -> AsyncIterator[Redis]:
    async with Redis(port=settings.redis.port, db=REDIS_DATABASE, password=PASSWORD) as redis:
        yield redis


@pytest.fixture
def name() -> str:
    return secrets.token_hex()


async def everything(chunks: AsyncIterator[bytes]) -> list[bytes]:
    return [chunk async for chunk in chunks]


async def send(streams: AnswerStreams, name: str, parts: list[bytes]) -> None:
    async with streams.writing(name) as writer:
        for part in parts:
            await writer.write(part)
        await writer.end()


async def test_what_is_written_is_read_and_large_parts_come_in_chunks(
    streams: AnswerStreams, name: str
) -> None:
    parts = [b"a", secrets.token_bytes(3 * CHUNK_BYTES + 7), b"", b"z"]
    async with streams.reading(name) as chunks:
        writing = asyncio.create_task(send(streams, name, parts))
        got = await everything(chunks)
        await writing
    assert b"".join(got) == b"".join(parts)
    assert max(map(len, got)) <= CHUNK_BYTES


async def test_the_first_bytes_do_not_wait_for_more(streams: AnswerStreams, name: str) -> None:
    async with streams.reading(name) as chunks, streams.writing(name) as writer:
        await writer.write(b"a")
        assert await anext(chunks) == b"a"


async def test_an_empty_answer_ends_at_once(streams: AnswerStreams, name: str) -> None:
    async with streams.reading(name) as chunks:
        await send(streams, name, [])
        assert await everything(chunks) == []


async def test_a_writer_is_stopped_by_a_reader_that_takes_nothing(
    streams: AnswerStreams, redis: Redis, name: str
) -> None:
    async with streams.reading(name) as chunks:
        writing = asyncio.create_task(send(streams, name, [bytes(CHUNK_BYTES)] * 3 * WINDOW_CHUNKS))
        key = f"tickgate:answer:{{{name}}}:chunks"
        while await redis.llen(key) < WINDOW_CHUNKS:
            await asyncio.sleep(0.01)
        _, pending = await asyncio.wait({writing}, timeout=0.3)
        assert pending
        assert await redis.llen(key) == WINDOW_CHUNKS
        assert len(b"".join(await everything(chunks))) == 3 * WINDOW_CHUNKS * CHUNK_BYTES
        await writing


async def test_a_writer_that_leaves_without_an_end_breaks_the_answer(
    streams: AnswerStreams, name: str
) -> None:
    async with streams.reading(name) as chunks:
        async with streams.writing(name) as writer:
            await writer.write(b"a")
        assert await anext(chunks) == b"a"
        with pytest.raises(Unavailable, match="ANSWER_BROKEN"):
            await anext(chunks)


async def test_a_second_run_cannot_write_behind_the_first(streams: AnswerStreams, name: str) -> None:
    async with streams.reading(name) as chunks:
        await send(streams, name, [b"a"])
        with pytest.raises(Unavailable, match="ANSWER_BROKEN"):
            await send(streams, name, [b"b"])
        assert await everything(chunks) == [b"a"]


async def test_a_chunk_that_is_lost_breaks_the_answer(
    streams: AnswerStreams, redis: Redis, name: str
) -> None:
    async with streams.reading(name) as chunks:
        await send(streams, name, [bytes(CHUNK_BYTES)] * 3)
        await redis.lpop(f"tickgate:answer:{{{name}}}:chunks")
        with pytest.raises(Unavailable, match="ANSWER_BROKEN"):
            await anext(chunks)


async def test_an_emptied_redis_breaks_the_answer(streams: AnswerStreams, redis: Redis, name: str) -> None:
    async with streams.reading(name) as chunks:
        writing = asyncio.create_task(send(streams, name, [bytes(CHUNK_BYTES)] * 3 * WINDOW_CHUNKS))
        await anext(chunks)
        for key in await redis.keys(f"tickgate:answer:{{{name}}}:*"):
            await redis.delete(key)
        async with asyncio.timeout(GONE_WITHIN_S):
            with pytest.raises(Unavailable, match="ANSWER_BROKEN"):
                await everything(chunks)
    with pytest.raises(Unavailable):
        async with asyncio.timeout(GONE_WITHIN_S):
            await writing


async def test_a_reader_that_leaves_is_noticed_at_once(streams: AnswerStreams, name: str) -> None:
    async with streams.writing(name) as writer:
        async with streams.reading(name) as chunks:
            await writer.write(b"a")
            await anext(chunks)
        async with asyncio.timeout(2):
            await writer.abandoned()


async def test_either_side_misses_one_that_has_died(settings: Settings, proxy: Proxy, name: str) -> None:
    """Nobody says goodbye: a reader's and a writer's process lose their way to Redis."""
    lost = replace(settings, redis=replace(settings.redis, port=proxy.port))
    async with open_answer_streams(lost, {}) as dying, open_answer_streams(settings, {}) as streams:
        await asyncio.gather(opened(dying), opened(streams))
        async with (
            dying.reading(name),
            streams.writing(name) as writer,
            streams.reading(f"{name}2") as chunks,
            dying.writing(f"{name}2") as dead,
        ):
            await dead.write(b"a")
            assert await anext(chunks) == b"a"
            proxy.weather.refusing = True
            proxy.cut()
            async with asyncio.timeout(GONE_WITHIN_S):
                await writer.abandoned()
                with pytest.raises(Unavailable, match="ANSWER_BROKEN"):
                    await anext(chunks)
