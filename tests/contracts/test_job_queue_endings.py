"""How jobs end: cancelled, tried again, buried; with progress on the way; and what Redis may do meanwhile."""

import asyncio
import signal
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
import redis

from core.adapters.redis.job_queue import RedisJobQueue
from core.adapters.redis.job_queue_control import RedisQueueControl
from core.errors.categories import Category
from core.errors.exceptions import Conflict, Corrupt, NotFound, RateLimited, Unavailable
from core.messages.dead_letters import DeadLetter, request_of
from core.messages.jobs import Answer, JobStatus, SymbolQuery, TickQuery
from core.model.retries import RetryClass
from core.ports.jobs import JobFunction
from core.settings import Settings
from tests.engines import House
from tests.queue_engines import reached, until
from tests.queue_workers import PRIVATE, echo, worker_process, working

TICKS = TickQuery(symbol="EURUSD")


class Slow:
    """A function that begins, says how far it is, and ends when it may."""

    def __init__(self) -> None:
        self.begun, self.may_end, self.stopped = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def run(self, ctx: dict[str, Any], request: Any, **rest: Any) -> Answer:
        ctx["progress"](1, 3, "one of three")
        self.begun.set()
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.stopped.set()
            raise
        return await echo(ctx, request, **rest)

    @property
    def functions(self) -> list[JobFunction]:
        return [JobFunction(name="market.ticks", run=self.run)]


async def asked(queue: RedisJobQueue, timeout_ms: int = 10_000) -> Answer:
    answer = await queue.ask("market.ticks", TICKS, tenant="demo", timeout_ms=timeout_ms)
    assert isinstance(answer, Answer)
    return answer


async def put(queue: RedisJobQueue) -> str:
    """Ask without waiting."""
    job_id = await queue.ask("market.ticks", TICKS, tenant="demo", timeout_ms=1)
    assert isinstance(job_id, str)
    return job_id


async def buried(control: RedisQueueControl) -> list[DeadLetter]:
    return [msgspec.msgpack.decode(one, type=DeadLetter) for one in await control.buried("database", 100)]


async def test_a_waiting_job_is_cancelled_at_once(
    job_queue: RedisJobQueue, queue_control: RedisQueueControl, queue_valkey: redis.Redis
) -> None:
    job_id = await put(job_queue)
    state = await queue_control.cancel(job_id, tenant="demo")
    assert state.status is JobStatus.CANCELLED
    assert (await job_queue.state(job_id, tenant="demo")).status is JobStatus.CANCELLED
    assert not queue_valkey.zcard("arq:queue:database")


async def test_a_running_job_is_cancelled_within_a_second(
    job_queue: RedisJobQueue, queue_control: RedisQueueControl, queue_settings: Settings
) -> None:
    slow = Slow()
    async with working(queue_settings, slow.functions):
        job_id = await put(job_queue)
        await slow.begun.wait()
        assert (await queue_control.cancel(job_id, tenant="demo")).status is JobStatus.RUNNING
        async with asyncio.timeout(1):
            await slow.stopped.wait()
        await reached(job_queue, job_id, JobStatus.CANCELLED)


async def test_a_cancellation_that_was_not_heard_is_found_by_the_heartbeat(
    job_queue: RedisJobQueue, queue_settings: Settings, queue_valkey: redis.Redis
) -> None:
    slow = Slow()
    async with working(queue_settings, slow.functions):
        job_id = await put(job_queue)
        await slow.begun.wait()
        # What a stock client's abort() leaves.
        queue_valkey.zadd("arq:abort", {job_id: time.time() * 1_000})
        await reached(job_queue, job_id, JobStatus.CANCELLED)


async def test_whoever_waits_for_a_cancelled_job_is_told(
    job_queue: RedisJobQueue, queue_control: RedisQueueControl
) -> None:
    asking = asyncio.create_task(asked(job_queue))
    job_id = await until(lambda: _waiting(job_queue))
    await until(lambda: _present(job_queue, job_id))
    await queue_control.cancel(job_id, tenant="demo")
    with pytest.raises(Conflict, match="JOB_CANCELLED"):
        await asking


async def _waiting(queue: RedisJobQueue) -> str | None:
    return next(iter(queue._waiting), None)


async def _present(queue: RedisJobQueue, job_id: str) -> bool:
    try:
        return (await queue.state(job_id, tenant="demo")).status is JobStatus.QUEUED
    except NotFound:
        return False


async def test_another_tenants_job_cannot_be_cancelled(
    job_queue: RedisJobQueue, queue_control: RedisQueueControl
) -> None:
    job_id = await put(job_queue)
    with pytest.raises(NotFound):
        await queue_control.cancel(job_id, tenant="rival")
    assert (await job_queue.state(job_id, tenant="demo")).status is JobStatus.QUEUED


async def test_a_job_that_has_ended_cannot_be_cancelled(
    job_queue: RedisJobQueue, queue_control: RedisQueueControl, queue_settings: Settings
) -> None:
    job_id = await put(job_queue)
    async with working(queue_settings):
        await reached(job_queue, job_id, JobStatus.FINISHED)
    with pytest.raises(Conflict, match="JOB_ENDED"):
        await queue_control.cancel(job_id, tenant="demo")


async def test_a_running_job_says_how_far_it_is(job_queue: RedisJobQueue, queue_settings: Settings) -> None:
    slow = Slow()
    async with working(queue_settings, slow.functions):
        job_id = await put(job_queue)
        await slow.begun.wait()

        async def said() -> Any:
            return (await job_queue.state(job_id, tenant="demo")).progress

        progress = await until(said)
        assert (progress.done, progress.total, progress.note) == (1, 3, "one of three")
        slow.may_end.set()
        assert (await reached(job_queue, job_id, JobStatus.FINISHED)).progress is None


class Failing:
    """A function that fails as often as it is told to."""

    def __init__(self, errors: Sequence[Exception]) -> None:
        self.errors = list(errors)
        self.runs = 0

    async def run(self, ctx: dict[str, Any], request: Any, **rest: Any) -> Answer:
        self.runs += 1
        if self.errors:
            raise self.errors.pop(0)
        return await echo(ctx, request, **rest)

    def functions(self, retry: RetryClass, tries: int = 3) -> list[JobFunction]:
        return [JobFunction(name="market.ticks", run=self.run, retry=retry, tries=tries)]


async def test_what_was_away_is_tried_again_where_nobody_is_kept_waiting(
    job_queue: RedisJobQueue, queue_control: RedisQueueControl, queue_settings: Settings
) -> None:
    failing = Failing([Unavailable("away")])
    async with working(queue_settings, failing.functions(RetryClass.WHEN_UNAVAILABLE)):
        answer = await asked(job_queue)
    assert msgspec.json.decode(answer.body)["try"] == 2
    assert await buried(queue_control) == []


async def test_what_was_away_is_told_at_once_where_somebody_waits(
    job_queue: RedisJobQueue, queue_control: RedisQueueControl, queue_settings: Settings
) -> None:
    failing = Failing([Unavailable("away")])
    async with working(queue_settings, failing.functions(RetryClass.NEVER)):
        with pytest.raises(Unavailable, match="away"):
            await asked(job_queue)
    assert failing.runs == 1
    assert await buried(queue_control) == []


async def test_a_job_whose_tries_are_used_up_is_buried(
    job_queue: RedisJobQueue, queue_control: RedisQueueControl, queue_settings: Settings
) -> None:
    failing = Failing([Unavailable("away"), Unavailable("away")])
    async with working(queue_settings, failing.functions(RetryClass.WHEN_UNAVAILABLE, tries=2)):
        with pytest.raises(Unavailable, match="away"):
            await asked(job_queue)
    (letter,) = await buried(queue_control)
    assert (letter.attempts, letter.category, letter.tenant) == (2, Category.UNAVAILABLE, "demo")
    assert letter.first_failed_at_ms < letter.last_failed_at_ms


async def test_a_defect_is_buried_with_what_was_asked_and_without_its_secret(
    job_queue: RedisJobQueue, queue_control: RedisQueueControl, queue_settings: Settings
) -> None:
    job_id = await job_queue.ask("market.symbols", SymbolQuery(source="s"), tenant="demo", timeout_ms=1)
    assert isinstance(job_id, str)
    async with working(queue_settings):
        await reached(job_queue, job_id, JobStatus.FAILED)
    (letter,) = await buried(queue_control)
    assert (letter.job_id, letter.function, letter.code) == (job_id, "market.symbols", "DEFECT")
    assert len(letter.fingerprint) == 16
    assert bytes(request_of(letter) or b"") == b'{"source":"s"}'
    assert PRIVATE not in letter.public


async def test_a_callers_own_error_is_not_buried(
    job_queue: RedisJobQueue, queue_control: RedisQueueControl, queue_settings: Settings
) -> None:
    job_id = await job_queue.ask("market.quarantine", TICKS, tenant="demo", timeout_ms=1)
    assert isinstance(job_id, str)
    async with working(queue_settings):
        await reached(job_queue, job_id, JobStatus.FAILED)
    assert await buried(queue_control) == []


async def test_a_job_that_kills_its_workers_is_buried(
    job_queue: RedisJobQueue, queue_control: RedisQueueControl, queue_settings: Settings, queue_house: House
) -> None:
    job_id = await job_queue.ask("market.completeness", TICKS, tenant="demo", timeout_ms=1)
    assert isinstance(job_id, str)
    for _ in range(3):
        # It ends itself at the job's hands.
        worker = worker_process(queue_house)
        assert await asyncio.to_thread(worker.wait, 20) == -signal.SIGKILL
    async with working(queue_settings):
        await reached(job_queue, job_id, JobStatus.FAILED)
    (letter,) = await buried(queue_control)
    assert (letter.code, letter.attempts) == ("JOB_GAVE_UP", 3)


async def test_a_buried_job_can_be_asked_again(
    job_queue: RedisJobQueue, queue_control: RedisQueueControl, queue_settings: Settings
) -> None:
    failing = Failing([KeyError("bug")])
    job_id = await put(job_queue)
    async with working(queue_settings, failing.functions(RetryClass.NEVER)):
        await reached(job_queue, job_id, JobStatus.FAILED)
        (letter,) = await buried(queue_control)
        await queue_control.put("dead.1", letter.queue, letter.job)
        state = await reached(job_queue, "dead.1", JobStatus.FINISHED)
    assert state.attempts == 1


async def test_what_cannot_be_read_is_not_asked_again(queue_control: RedisQueueControl) -> None:
    with pytest.raises(Corrupt):
        await queue_control.put("dead.1", "database", b"\x80\x04nonsense")


async def test_a_dead_letter_is_let_go_of_once_however_often_it_is_said(
    queue_control: RedisQueueControl, queue_valkey: redis.Redis
) -> None:
    queue_valkey.rpush("arq:queue:database:dead", b"a", b"b")
    await queue_control.forget_buried("database", [b"a"])
    await queue_control.forget_buried("database", [b"a"])
    assert await queue_control.buried("database", 10) == [b"b"]


async def test_a_redis_without_memory_delivers_the_answer_it_cannot_keep(
    job_queue: RedisJobQueue, queue_settings: Settings, queue_valkey: redis.Redis
) -> None:
    slow = Slow()
    async with working(queue_settings, slow.functions):
        asking = asyncio.create_task(asked(job_queue))
        await slow.begun.wait()
        queue_valkey.config_set("maxmemory", "1")
        try:
            slow.may_end.set()
            assert (await asking).rows == 1
            with pytest.raises(Unavailable):
                await asked(job_queue)
        finally:
            queue_valkey.config_set("maxmemory", "0")
        assert (await asked(job_queue)).rows == 1


async def test_a_server_that_became_a_replica_is_left_and_nothing_restarted(
    job_queue: RedisJobQueue, queue_settings: Settings, queue_valkey: redis.Redis
) -> None:
    slow = Slow()
    async with working(queue_settings, slow.functions):
        asking = asyncio.create_task(asked(job_queue, 20_000))
        await slow.begun.wait()
        before = job_queue.commands.get()
        queue_valkey.replicaof("127.0.0.1", "1")
        try:
            slow.may_end.set()
            with pytest.raises(Unavailable):
                await asked(job_queue)
            await until(lambda: _lost(before))
        finally:
            queue_valkey.replicaof("NO", "ONE")
        assert (await asking).rows == 1

        async def again() -> bool:
            try:
                return (await asked(job_queue)).rows == 1
            except Unavailable:
                return False

        assert await until(again)


async def _lost(connection: Any) -> bool:
    return bool(connection.lost.done())


async def test_a_queues_standing_counts_what_waits_and_who_works(
    job_queue: RedisJobQueue, queue_control: RedisQueueControl, queue_settings: Settings
) -> None:
    job_id = await put(job_queue)
    standings = {one.name: one for one in await queue_control.standings()}
    assert set(standings) == {"database", "trading", "chain"}
    waiting = standings["database"]
    assert (waiting.depth, waiting.workers_alive, waiting.in_progress) == (1, 0, 0)
    assert waiting.oldest_age_s is not None
    slow = Slow()
    async with working(queue_settings, slow.functions), working(queue_settings, slow.functions):
        await slow.begun.wait()

        async def busy() -> bool:
            one = next(one for one in await queue_control.standings() if one.name == "database")
            return (one.depth, one.workers_alive, one.in_progress) == (1, 2, 1)

        assert await until(busy)
        slow.may_end.set()
        await reached(job_queue, job_id, JobStatus.FINISHED)
    idle = next(one for one in await queue_control.standings() if one.name == "database")
    assert (idle.depth, idle.workers_alive, idle.oldest_age_s) == (0, 0, None)


async def test_a_tenant_with_too_many_jobs_under_way_is_refused_and_nobody_else(
    job_queue: RedisJobQueue, queue_settings: Settings
) -> None:
    job_queue.left.under_way_max = 3
    left = [await put(job_queue) for _ in range(3)]
    with pytest.raises(RateLimited, match="TOO_MANY_JOBS"):
        await put(job_queue)
    assert isinstance(await job_queue.ask("market.ticks", TICKS, tenant="rival", timeout_ms=1), str)
    async with working(queue_settings):
        for job_id in left:
            await reached(job_queue, job_id, JobStatus.FINISHED)

        async def room() -> bool:
            try:
                return (await asked(job_queue)).rows == 1
            except RateLimited:
                return False

        assert await until(room)


async def test_the_oldest_answers_go_when_a_tenant_lets_too_many_lie(
    job_queue: RedisJobQueue, queue_settings: Settings
) -> None:
    job_queue.left.kept_bytes_max = 3_000_000
    left = []
    for _ in range(2):
        job_id = await job_queue.ask("market.quotes", TICKS, tenant="demo", timeout_ms=1)
        assert isinstance(job_id, str)
        left.append(job_id)
    async with working(queue_settings):
        assert await until(lambda: _kept(job_queue, left)) == [JobStatus.FINISHED]


async def _kept(queue: RedisJobQueue, jobs: Sequence[str]) -> list[JobStatus] | None:
    """Return the states of those that are still known once one is not."""
    states = []
    for job_id in jobs:
        try:
            states.append((await queue.state(job_id, tenant="demo")).status)
        except NotFound:
            continue
    return states if len(states) < len(jobs) else None
