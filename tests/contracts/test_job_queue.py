"""The job queue on a real Valkey: round trips, death on every side, and stock arq at either end."""

import asyncio
import pickle
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import arq
import msgspec
import pytest
import redis
from arq.connections import ArqRedis, RedisSettings, create_pool
from arq.worker import Worker

from core.adapters.redis.job_queue import RedisJobQueue, open_job_queue
from core.errors.categories import Category
from core.errors.exceptions import Invalid, NotFound, Unavailable
from core.messages import codec
from core.messages.jobs import (
    Answer,
    BarQuery,
    JobStatus,
    QuarantineQuery,
    QuoteQuery,
    Reported,
    SymbolQuery,
    TickQuery,
)
from core.messages.message import Message
from core.ports.jobs import JobFunction
from core.settings import Settings
from tests.engines import PASSWORD, Engine, House, build_house, listens, wait_for
from tests.queue_workers import FUNCTIONS, PRIVATE, echo, worker_process, working

QUEUE = "arq:queue:database"
TICKS = TickQuery(symbol="EURUSD")


@pytest.fixture(scope="module")
def own_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A Valkey of this module's own, because it is killed here."""
    house = build_house(tmp_path_factory.mktemp("queue"))
    engine = house.engines["valkey"]
    engine.start()
    engine.wait()
    yield house
    engine.stop()


@pytest.fixture
def valkey(own_house: House) -> Iterator[redis.Redis]:
    port = own_house.engines["valkey"].port
    client = redis.Redis(port=port, password=PASSWORD, socket_timeout=5)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def settings(own_house: House, valkey: redis.Redis) -> Settings:
    return own_house.settings


@pytest.fixture
async def queue(settings: Settings) -> AsyncIterator[RedisJobQueue]:
    async with open_job_queue(settings, {}) as queue:
        async with asyncio.timeout(5):
            await queue.replies.wait()
            await queue.commands.wait()
        yield queue


@asynccontextmanager
async def stock_client(settings: Settings, **serializers: Any) -> AsyncIterator[ArqRedis]:
    client = await create_pool(
        RedisSettings(host="127.0.0.1", port=settings.redis.port, password=PASSWORD),
        default_queue_name=QUEUE,
        **serializers,
    )
    try:
        yield client
    finally:
        await client.aclose(close_connection_pool=True)


OURS: dict[str, Any] = {"job_serializer": codec.encode, "job_deserializer": codec.decode}


async def asked(queue: RedisJobQueue, function: str, request: Message, timeout_ms: int = 10_000) -> Answer:
    answer = await queue.ask(function, request, tenant="demo", timeout_ms=timeout_ms)
    assert isinstance(answer, Answer), f"still waiting: {answer}"
    return answer


async def until(fact: Callable[[], Awaitable[Any]], timeout_s: float = 10) -> Any:
    async with asyncio.timeout(timeout_s):
        while not (found := await fact()):
            await asyncio.sleep(0.02)
    return found


async def test_a_question_is_answered_with_its_tenant(queue: RedisJobQueue, settings: Settings) -> None:
    async with working(settings):
        answer = await asked(queue, "market.ticks", TICKS)
    body = msgspec.json.decode(answer.body)
    assert (body["tenant"], body["try"], body["request"]["symbol"]) == ("demo", 1, "EURUSD")


async def test_nothing_is_left_behind_once_answers_are_delivered(
    queue: RedisJobQueue, settings: Settings, valkey: redis.Redis
) -> None:
    async with working(settings):
        await asyncio.gather(*(asked(queue, "market.ticks", TICKS) for _ in range(200)))

        async def empty() -> bool:
            # What is left are its workers' signs of life.
            return all(b":health-check" in key or b":worker" in key for key in list(valkey.scan_iter()))

        await until(empty)


async def test_a_large_answer_arrives_whole(queue: RedisJobQueue, settings: Settings) -> None:
    async with working(settings):
        answer = await asked(queue, "market.quotes", QuoteQuery(symbols=["A"]))
    assert answer.body == b"x" * 2_000_000


async def test_an_error_raised_on_purpose_arrives_as_itself(queue: RedisJobQueue, settings: Settings) -> None:
    async with working(settings):
        with pytest.raises(Invalid) as refused:
            await asked(queue, "market.quarantine", QuarantineQuery())
    assert (refused.value.code, refused.value.public) == ("NONSENSE", "that makes no sense")


async def test_a_defect_arrives_as_a_fingerprint_and_nothing_else(
    queue: RedisJobQueue, settings: Settings, valkey: redis.Redis
) -> None:
    async with working(settings):
        with pytest.raises(Reported) as broken:
            await asked(queue, "market.symbols", SymbolQuery())
    assert broken.value.category is Category.DEFECT
    assert len(broken.value.fingerprint) == 16
    assert PRIVATE not in str(broken.value)
    assert not any(PRIVATE.encode() in (valkey.get(key) or b"") for key in valkey.keys("arq:result:*"))


async def test_a_job_that_outlasts_its_caller_is_only_its_tenants(
    queue: RedisJobQueue, settings: Settings
) -> None:
    job_id = await queue.ask("market.ticks", TICKS, tenant="demo", timeout_ms=10)
    assert isinstance(job_id, str)
    assert (await queue.state(job_id, tenant="demo")).status is JobStatus.QUEUED
    with pytest.raises(NotFound):
        await queue.state(job_id, tenant="rival")
    async with working(settings):

        async def finished() -> bool:
            return (await queue.state(job_id, tenant="demo")).status is JobStatus.FINISHED

        await until(finished)
    state = await queue.state(job_id, tenant="demo")
    assert state.answer is not None
    assert state.attempts == 1
    with pytest.raises(NotFound):
        await queue.state(job_id, tenant="rival")


async def test_a_killed_workers_job_runs_again_within_seconds(
    queue: RedisJobQueue, settings: Settings, own_house: House
) -> None:
    victim = worker_process(own_house)
    try:
        asking = asyncio.create_task(asked(queue, "market.bars", BarQuery(symbol="A"), 20_000))
        job_id = await until(lambda: _first(list(queue._waiting)))

        async def running() -> bool:
            return (await queue.state(job_id, tenant="demo")).status is JobStatus.RUNNING

        await until(running)
    finally:
        victim.kill()
        victim.wait()
    async with working(settings), asyncio.timeout(8):
        answer = await asking
    assert msgspec.json.decode(answer.body)["try"] == 2


async def _first(found: list[str]) -> str | None:
    return found[0] if found else None


async def test_a_job_in_hand_when_told_to_stop_is_finished_first(
    queue: RedisJobQueue, settings: Settings
) -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def slow(ctx: dict[str, Any], request: Any, **rest: Any) -> Answer:
        begun.set()
        await may_end.wait()
        return await echo(ctx, request, **rest)

    async with working(settings, [JobFunction(name="market.ticks", run=slow)]) as stop:
        asking = asyncio.create_task(asked(queue, "market.ticks", TICKS))
        await begun.wait()
        stop.set()
        await asyncio.sleep(0)
        may_end.set()
        assert (await asking).rows == 1


async def test_an_emptied_redis_loses_no_question_that_is_awaited(
    queue: RedisJobQueue, settings: Settings, valkey: redis.Redis
) -> None:
    asking = asyncio.create_task(asked(queue, "market.ticks", TICKS))

    async def waiting() -> bool:
        return bool(valkey.zcard(QUEUE))

    await until(waiting)
    valkey.flushall()
    async with working(settings):
        assert (await asking).rows == 1


async def test_a_redis_that_dies_and_returns_is_found_again_by_both_sides(
    queue: RedisJobQueue, settings: Settings, own_house: House
) -> None:
    engine: Engine = own_house.engines["valkey"]
    async with working(settings):
        await asked(queue, "market.ticks", TICKS)
        engine.stop(signal.SIGKILL)
        with pytest.raises(Unavailable):
            await asked(queue, "market.ticks", TICKS)
        await asyncio.to_thread(wait_for, lambda: not listens(engine.port), "Valkey being gone")
        # In this thread: an engine dies with the thread that started it.
        engine.start()
        await asyncio.to_thread(engine.wait)

        async def answered() -> bool:
            try:
                return (await asked(queue, "market.ticks", TICKS)).rows == 1
            except Unavailable:
                return False

        assert await until(answered)


async def test_every_awaited_question_is_answered_while_workers_die_and_redis_is_emptied(
    queue: RedisJobQueue, own_house: House, valkey: redis.Redis
) -> None:
    dice = random.Random(11)
    workers = [worker_process(own_house) for _ in range(2)]
    answered = 0

    async def keep_asking() -> None:
        nonlocal answered
        for _ in range(60):
            assert (await asked(queue, "market.ticks", TICKS, 25_000)).rows == 1
            answered += 1

    try:
        asking = asyncio.gather(*(keep_asking() for _ in range(25)))
        for step in range(1, 6):
            await until(lambda step=step: _reached(lambda: answered, step * 250), 25)
            victim = workers.pop(dice.randrange(2))
            victim.kill()
            victim.wait()
            workers.append(worker_process(own_house))
            if step % 2 == 0:
                valkey.flushall()
        async with asyncio.timeout(25):
            await asking
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert answered == 25 * 60


async def _reached(count: Callable[[], int], wanted: int) -> bool:
    return count() >= wanted


async def test_a_stock_client_can_enqueue_here(queue: RedisJobQueue, settings: Settings) -> None:
    async with stock_client(settings, **OURS) as client, working(settings):
        job = await client.enqueue_job("market.ticks", {"symbol": "EURUSD"}, tenant="demo")
        assert job is not None
        result = await job.result(timeout=10, poll_delay=0.05)
        refused = await client.enqueue_job("market.quarantine", {}, tenant="demo")
        assert refused is not None
        with pytest.raises(arq.jobs.SerializationError, match="NONSENSE"):
            await refused.result(timeout=10, poll_delay=0.05)
    assert msgspec.json.decode(result["body"])["request"] == {"symbol": "EURUSD"}


async def test_a_deferred_job_runs_when_it_is_due(settings: Settings, queue: RedisJobQueue) -> None:
    async with stock_client(settings, **OURS) as client, working(settings):
        job = await client.enqueue_job("market.ticks", {"symbol": "A"}, tenant="demo", _defer_by=0.5)
        assert job is not None
        assert await job.status() == arq.jobs.JobStatus.deferred
        await job.result(timeout=10, poll_delay=0.05)
        info = await job.result_info()
    assert info is not None
    assert (info.start_time - info.enqueue_time).total_seconds() >= 0.5


async def test_a_stock_worker_can_consume_what_is_asked_here(
    queue: RedisJobQueue, settings: Settings
) -> None:
    async with stock_client(settings, **OURS) as client:
        worker = Worker(
            functions=[arq.func(function.run, name=function.name) for function in FUNCTIONS],  # type: ignore[arg-type]
            queue_name=QUEUE,
            redis_pool=client,
            handle_signals=False,
            poll_delay=0.05,
            **OURS,
        )
        running = asyncio.create_task(worker.async_run())
        try:
            assert (await asked(queue, "market.ticks", TICKS)).rows == 1
            with pytest.raises(Invalid, match="NONSENSE"):
                await asked(queue, "market.quarantine", QuarantineQuery())
            with pytest.raises(Reported) as broken:
                await asked(queue, "market.symbols", SymbolQuery())
            assert PRIVATE not in str(broken.value)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


class _Bomb:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.path, "w"))


async def test_pickled_jobs_are_dropped_unopened(
    queue: RedisJobQueue, settings: Settings, valkey: redis.Redis, tmp_path: Path
) -> None:
    trace = tmp_path / "exploded"
    async with stock_client(settings, job_serializer=pickle.dumps) as client:
        await client.enqueue_job("market.ticks", _Bomb(str(trace)), tenant="demo")
    async with working(settings):

        async def dropped() -> bool:
            return not valkey.zcard(QUEUE)

        await until(dropped)
        assert (await asked(queue, "market.ticks", TICKS)).rows == 1
    assert not trace.exists()


async def test_a_worker_is_seen_while_it_lives(queue: RedisJobQueue, settings: Settings) -> None:
    assert not await queue.served("database")
    async with working(settings):
        assert await until(lambda: queue.served("database"))
