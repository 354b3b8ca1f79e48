"""Answers passed in chunks from a worker to a gateway: a list of chunks one way, a list of credits the other.

The writer has as many credits as chunks may lie in Redis, and gets one back for each chunk that its reader is done
with; so a slow reader stops the writer. Chunks are numbered and the last one says so: what is lost on the way, with
a connection or with Redis' memory, is noticed and never taken for the end. Each side keeps a key alive that tells
the other it still lives, and everything here expires by itself.
"""

import asyncio
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, Final

import hiredis

from core.adapters.redis.connection import Command, Connection, Lost, connect
from core.adapters.redis.link import Link, running
from core.errors.exceptions import Unavailable
from core.settings import RedisSettings, Settings

CHUNK_BYTES: Final = 256 * 1024
WINDOW_CHUNKS: Final = 8
"""Chunks of one answer that may lie in Redis."""
POP_BLOCKS_S: Final = 1
BEAT_INTERVAL_S: Final = 1.0
ALIVE_MS: Final = 5_000
"""A side not heard of for this long is gone."""
KEPT_MS: Final = 30_000
BEGUN_KEPT_MS: Final = 3_600_000
"""As long as a job lives: whoever runs it again must not write behind what its reader has."""

GONE_PAUSE_S: Final = 0.1

_HEAD: Final = struct.Struct(">cQ")
_DATA, _END, _BROKEN = b"d", b"e", b"b"
_ABANDONED: Final = b"x"
_TROUBLE: Final = (Lost, hiredis.ReplyError)


class _Keys:
    """The names of one stream's keys. The braces keep them on one shard."""

    def __init__(self, stream: str) -> None:
        prefix = f"tickgate:answer:{{{stream}}}"
        self.chunks = f"{prefix}:chunks"
        self.credits = f"{prefix}:credits"
        self.reader = f"{prefix}:reader"
        self.writer = f"{prefix}:writer"
        self.begun = f"{prefix}:begun"

    def kept(self) -> tuple[Command, Command]:
        return ("PEXPIRE", self.chunks, KEPT_MS), ("PEXPIRE", self.credits, KEPT_MS)


class RedisAnswerWriter:
    """The `AnswerWriter` port. pops: a connection of its own, because waiting for credits blocks it."""

    def __init__(self, link: Link, pops: Connection, keys: _Keys) -> None:
        self._link = link
        self._pops = pops
        self._keys = keys
        self._credits = WINDOW_CHUNKS
        self._number = 0
        self._rest = b""
        self._gone = asyncio.Event()
        self._ended = False

    async def write(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        view = memoryview(data)
        whole = len(data) - len(data) % CHUNK_BYTES
        for start in range(0, whole, CHUNK_BYTES):
            await self._push(_DATA, view[start : start + CHUNK_BYTES])
        self._rest = data[whole:]
        if not self._number:
            # An answer begins with whatever there is.
            await self._flush()

    async def end(self) -> None:
        await self._flush()
        await self._push(_END, b"")
        self._ended = True

    async def abandoned(self) -> None:
        await self._gone.wait()

    async def beat(self) -> None:
        """Say that the writer lives, and look whether its reader does, until cancelled."""
        while not self._gone.is_set():
            with suppress(Unavailable):
                _, reader, *_ = await _ask(
                    self._link,
                    ("SET", self._keys.writer, 1, "PX", ALIVE_MS),
                    ("EXISTS", self._keys.reader),
                    *self._keys.kept(),
                )
                if not reader:
                    self._gone.set()
            await asyncio.sleep(BEAT_INTERVAL_S)

    def leave(self) -> None:
        """Tell the reader that nothing more will come, or take away what nobody will read; if Redis can be told."""
        keys = self._keys
        commands: list[Command] = [("UNLINK", keys.writer)]
        if self._gone.is_set():
            commands = [("UNLINK", keys.chunks, keys.credits, keys.writer)]
        elif not self._ended:
            commands = [("RPUSH", keys.chunks, _HEAD.pack(_BROKEN, self._number)), *keys.kept()]
        with suppress(Unavailable):
            self._link.get().send(*commands)

    async def _flush(self) -> None:
        if self._rest:
            rest, self._rest = self._rest, b""
            await self._push(_DATA, rest)

    async def _push(self, kind: bytes, data: bytes | memoryview) -> None:
        while not self._credits:
            await self._earn()
        self._credits -= 1
        frame = b"".join((_HEAD.pack(kind, self._number), data))
        self._number += 1
        await _ask(self._link, ("RPUSH", self._keys.chunks, frame), *self._keys.kept())

    async def _earn(self) -> None:
        try:
            (popped,) = await self._pops.ask(
                ("BLMPOP", POP_BLOCKS_S, 1, self._keys.credits, "LEFT", "COUNT", WINDOW_CHUNKS)
            )
        except _TROUBLE as e:
            raise _away(e) from e
        earned = popped[1] if popped else []
        self._credits += len(earned)
        if _ABANDONED in earned:
            self._gone.set()
            # Whoever heeds `abandoned` hears of it first.
            await asyncio.sleep(GONE_PAUSE_S)
            raise Unavailable("nobody reads the answer any more", code="ANSWER_ABANDONED")


class _Reader:
    """Takes the chunks in turn. pops: a connection of its own, because waiting for a chunk blocks it."""

    def __init__(self, link: Link, pops: Connection, keys: _Keys) -> None:
        self._link = link
        self._pops = pops
        self._keys = keys
        self._ended = False

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        expected = 0
        while True:
            kind, number, data = await self._next(begun=expected > 0)
            if kind == _BROKEN or number != expected:
                raise _broken(f"{kind!r} number {number} where {expected} is due")
            if kind == _END:
                self._ended = True
                return
            expected += 1
            yield data
            # We are asked for more, so that one has been passed on.
            self._link.get().send(("RPUSH", self._keys.credits, b"1"), *self._keys.kept())

    async def beat(self) -> None:
        """Say that the reader lives, until cancelled."""
        while True:
            with suppress(Unavailable):
                await self.show()
            await asyncio.sleep(BEAT_INTERVAL_S)

    async def show(self) -> None:
        await _ask(self._link, ("SET", self._keys.reader, 1, "PX", ALIVE_MS), *self._keys.kept())

    def leave(self) -> None:
        """Tell the writer, if it can be told, that nobody reads any more, and take away what lies here."""
        keys = self._keys
        commands: list[Command] = [("UNLINK", keys.reader, keys.chunks, keys.credits)]
        if not self._ended:
            commands += [("RPUSH", keys.credits, _ABANDONED), ("PEXPIRE", keys.credits, KEPT_MS)]
        with suppress(Unavailable):
            self._link.get().send(*commands)

    async def _next(self, *, begun: bool) -> tuple[bytes, int, bytes]:
        deserted = False
        while True:
            try:
                (popped,) = await self._pops.ask(
                    ("BLMPOP", POP_BLOCKS_S, 1, self._keys.chunks, "LEFT", "COUNT", 1)
                )
            except _TROUBLE as e:
                raise _broken(str(e)) from e
            if popped:
                frame = popped[1][0]
                kind, number = _HEAD.unpack_from(frame)
                return kind, number, frame[_HEAD.size :]
            if deserted:
                raise _broken("the writer has gone")
            # What it wrote before it went is popped first.
            (writing,) = await _ask(self._link, ("EXISTS", self._keys.writer))
            deserted = begun and not writing


class RedisAnswerStreams:
    """The `AnswerStreams` port on Redis."""

    def __init__(self, redis: RedisSettings, link: Link) -> None:
        self._redis = redis
        self._link = link

    @asynccontextmanager
    async def writing(self, stream: str) -> AsyncIterator[RedisAnswerWriter]:
        keys = _Keys(stream)
        async with self._pops() as pops:
            first, _ = await _ask(
                self._link,
                ("SET", keys.begun, 1, "NX", "PX", BEGUN_KEPT_MS),
                ("SET", keys.writer, 1, "PX", ALIVE_MS),
            )
            if not first:
                raise _broken("another run of this job has begun it")
            writer = RedisAnswerWriter(self._link, pops, keys)
            async with _beating(writer):
                try:
                    yield writer
                finally:
                    writer.leave()

    @asynccontextmanager
    async def reading(self, stream: str) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        async with self._pops() as pops:
            reader = _Reader(self._link, pops, _Keys(stream))
            await reader.show()
            try:
                async with aclosing(reader.chunks()) as chunks, _beating(reader):
                    yield chunks
            finally:
                reader.leave()

    @asynccontextmanager
    async def _pops(self) -> AsyncIterator[Connection]:
        try:
            connection = await connect(self._redis, self._redis.command_timeout_s + POP_BLOCKS_S)
        except (OSError, TimeoutError, hiredis.ReplyError) as e:
            raise _away(e) from e
        try:
            yield connection
        finally:
            connection.close()


@asynccontextmanager
async def _beating(side: RedisAnswerWriter | _Reader) -> AsyncIterator[None]:
    beating = asyncio.create_task(side.beat())
    try:
        yield
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)


async def _ask(link: Link, *commands: Command) -> list[Any]:
    try:
        return await link.get().ask(*commands)
    except _TROUBLE as e:
        raise _away(e) from e


def _away(error: Exception) -> Unavailable:
    return Unavailable("the job queue does not answer", code="QUEUE_UNAVAILABLE", detail=str(error))


def _broken(detail: str) -> Unavailable:
    return Unavailable("the answer broke off; ask again", code="ANSWER_BROKEN", detail=detail)


@asynccontextmanager
async def open_answer_streams(
    settings: Settings, _services: Mapping[str, Any]
) -> AsyncIterator[RedisAnswerStreams]:
    """Open them. An absent Redis is no reason not to start: streams raise Unavailable until it is there."""
    link = Link(settings.redis, "answers")
    async with running(link):
        yield RedisAnswerStreams(settings.redis, link)
