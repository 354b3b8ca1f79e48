"""The worker's side of the job queue: arq's formats and functions, woken by a list instead of polling.

A blocking pop on `<queue>:ready` brings job ids the moment they are asked. The list is only a hint: the sorted set
is the truth, and a slow sweep over it finds what no hint announced: lost hints, deferred jobs, stock producers.
A claim carries its owner and a short lease that a heartbeat renews, so a killed worker's job runs again in seconds.
"""

import asyncio
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import hiredis
import msgspec
import structlog
from arq.worker import Function, Retry, func

from core.adapters.redis import job_queue_format as arq_format
from core.adapters.redis.connection import Command, Lost
from core.adapters.redis.job_queue_format import Job
from core.adapters.redis.link import Link, running
from core.errors.exceptions import Corrupt, Defect, Unavailable
from core.messages.jobs import ErrorReport
from core.ports import JobFunction, QueueLimits
from core.settings import RedisSettings, Settings
from core.telemetry import metrics

log = structlog.get_logger(__name__)

LEASE_S: Final = 10.0
BEATS_PER_LEASE: Final = 3
SWEEP_INTERVAL_S: Final = 1.0
HINT_GRACE_MS: Final = 1_000
"""A job this young is probably on its way through the hint list."""
SWEPT_MAX: Final = 500
POP_BLOCKS_S: Final = 5
PAUSE_S: Final = 0.2
FINISH_PATIENCE_S: Final = 60.0
"""How long an answer waits for Redis to come back before it is dropped; the job then runs again."""

Report = Callable[..., ErrorReport]
_TROUBLE: Final = (Lost, Unavailable, hiredis.ReplyError)


@dataclass(slots=True)
class _Run:
    """One job on its way here. claimed: it is ours; deserted: somebody else has it now."""

    task: asyncio.Task[None]
    claimed: bool = False
    deserted: bool = False


@dataclass(slots=True)
class _Outcome:
    value: Any
    ok: bool


@dataclass(slots=True)
class QueueWorker:
    """Works one queue off."""

    redis: RedisSettings
    queue: QueueLimits
    functions: Mapping[str, Function]
    report: Report
    lease_s: float = LEASE_S
    owner: str = field(default_factory=lambda: f"{socket.gethostname()}:{secrets.token_hex(6)}")
    _runs: dict[str, _Run] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _commands: Link = field(init=False)
    _pops: Link = field(init=False)

    def __post_init__(self) -> None:
        self._commands = Link(self.redis, "jobs")
        self._pops = Link(self.redis, "hints", blocking_s=POP_BLOCKS_S)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`, then let what runs come to its end for as long as the queue allows."""
        async with running(self._commands, self._pops):
            taking = [asyncio.create_task(self._take_hints()), asyncio.create_task(self._sweep())]
            beating = asyncio.create_task(self._beat())
            stopped = asyncio.create_task(stop.wait())
            try:
                # The loops never end by themselves: one that does has a defect, and dying is heard of.
                done, _ = await asyncio.wait({*taking, beating, stopped}, return_when=asyncio.FIRST_COMPLETED)
                for task in done - {stopped}:
                    task.result()
                await _cancelled(*taking)
                await self._drain()
            finally:
                await _cancelled(*taking, beating, stopped, *(run.task for run in self._runs.values()))

    # -- finding work --------------------------------------------------------------------------------------
    async def _take_hints(self) -> None:
        ready = arq_format.ready_key(self.queue.name)
        while True:
            free = await self._free_places()
            connection = await self._pops.wait()
            try:
                (popped,) = await connection.ask(("BLMPOP", POP_BLOCKS_S, 1, ready, "LEFT", "COUNT", free))
            except _TROUBLE as e:
                log.warning("jobs.hints_away", queue=self.queue.name, error=str(e))
                await asyncio.sleep(PAUSE_S)
                continue
            for job_id in popped[1] if popped else ():
                self._start(job_id.decode())

    async def _sweep(self) -> None:
        key = arq_format.queue_key(self.queue.name)
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            until_ms = _now_ms() - HINT_GRACE_MS
            try:
                connection = await self._commands.wait()
                (due,) = await connection.ask(("ZRANGEBYSCORE", key, "-inf", until_ms, "LIMIT", 0, SWEPT_MAX))
                ids = [job_id.decode() for job_id in due]
                if not ids:
                    continue
                claims = await connection.ask(*(("EXISTS", arq_format.claim_key(job_id)) for job_id in ids))
            except _TROUBLE as e:
                log.warning("jobs.sweep_failed", queue=self.queue.name, error=str(e))
                continue
            for job_id, claimed in zip(ids, claims, strict=True):
                if not claimed and len(self._runs) < self.queue.concurrency:
                    self._start(job_id)

    async def _free_places(self) -> int:
        while len(self._runs) >= self.queue.concurrency:
            self._changed.clear()
            await self._changed.wait()
        return self.queue.concurrency - len(self._runs)

    def _start(self, job_id: str) -> None:
        if job_id not in self._runs:
            self._runs[job_id] = _Run(asyncio.create_task(self._attempt(job_id)))

    # -- one job -------------------------------------------------------------------------------------------
    async def _attempt(self, job_id: str) -> None:
        run = self._runs[job_id]
        try:
            claim = await self._claim(job_id)
            if claim is not None:
                run.claimed = True
                await self._execute(job_id, run, *claim)
        except asyncio.CancelledError:
            if run.claimed and not run.deserted:
                await self._release(job_id)
            raise
        except _TROUBLE as e:
            log.warning("jobs.attempt_lost", job=job_id, error=str(e))
        except Exception as e:
            self.report(e, job=job_id)
        finally:
            del self._runs[job_id]
            self._changed.set()
            metrics.JOBS_RUNNING.labels(self.queue.name).set(len(self._runs))

    async def _claim(self, job_id: str) -> tuple[bytes, int] | None:
        metrics.JOBS_RUNNING.labels(self.queue.name).set(len(self._runs))
        claim, attempts = arq_format.claim_key(job_id), arq_format.attempts_key(job_id)
        connection = await self._commands.wait()
        won, body, attempt, _ = await connection.ask(
            ("SET", claim, self.owner, "NX", "PX", self._lease_ms),
            ("GET", arq_format.job_key(job_id)),
            ("INCR", attempts),
            ("EXPIRE", attempts, arq_format.ATTEMPTS_KEPT_S),
        )
        if won is None:
            connection.send(("DECR", attempts), ("EXPIRE", attempts, arq_format.ATTEMPTS_KEPT_S))
            return None
        if body is None:
            # A hint of a job that is done, or a job whose body has expired.
            connection.send(("DEL", claim, attempts), ("ZREM", arq_format.queue_key(self.queue.name), job_id))
            return None
        return body, attempt

    async def _execute(self, job_id: str, run: _Run, body: bytes, attempt: int) -> None:
        started_at_ms = _now_ms()
        try:
            job = arq_format.decode_job(body)
        except msgspec.DecodeError as e:
            self.report(Corrupt("a job cannot be read", detail=str(e)), job=job_id)
            await self._forget(job_id)
            return
        attempt = max(attempt, job.t or 0)
        metrics.JOB_WAIT_SECONDS.labels(self.queue.name).observe(max(0, started_at_ms - job.et) / 1_000)
        try:
            outcome = await self._outcome(job_id, job, attempt)
        except Retry as retry:
            await self._put_back(job_id, job, retry.defer_score or 0)
            return
        if run.deserted:
            return
        function = job.f if job.f in self.functions else "unknown"
        metrics.JOB_RUN_SECONDS.labels(function).observe((_now_ms() - started_at_ms) / 1_000)
        metrics.JOBS_DONE.labels(function, "finished" if outcome.ok else "failed").inc()
        result = arq_format.encode_result(
            job,
            outcome.value,
            job_id=job_id,
            queue=self.queue.name,
            attempt=attempt,
            started_at_ms=started_at_ms,
            ended_at_ms=_now_ms(),
            ok=outcome.ok,
        )
        await self._finish(job_id, result)

    async def _outcome(self, job_id: str, job: Job, attempt: int) -> _Outcome:
        try:
            function = self._function(job, attempt)
            timeout_s = function.timeout_s or self.queue.timeout_s
            context = {"job_id": job_id, "job_try": attempt}
            try:
                async with asyncio.timeout(timeout_s):
                    return _Outcome(await function.coroutine(context, *job.a, **job.k), ok=True)
            except TimeoutError as e:
                raise Unavailable(
                    f"the answer took longer than {timeout_s:g} s; ask for less", code="JOB_TIMEOUT"
                ) from e
        except Retry:
            raise
        except Exception as e:
            return _Outcome(self.report(e, job=job_id, function=job.f, attempt=attempt), ok=False)

    def _function(self, job: Job, attempt: int) -> Function:
        if _now_ms() - job.et > self.queue.expiry_s * 1_000:
            raise Unavailable("the question waited too long to be worth answering", code="JOB_EXPIRED")
        if job.f not in self.functions:
            # A newer gateway may know more than this worker while a new version is rolled out.
            raise Unavailable("no worker knows how to answer this yet", code="UNKNOWN_FUNCTION")
        function = self.functions[job.f]
        if attempt > (function.max_tries or self.queue.tries):
            raise Defect(f"gave up after {attempt - 1} attempts", code="JOB_GAVE_UP")
        return function

    # -- ending a job --------------------------------------------------------------------------------------
    async def _finish(self, job_id: str, result: bytes) -> None:
        """Store the result, forget the job and tell its asker, in one transaction; again until Redis took it."""
        commands: list[Command] = [
            ("MULTI",),
            ("SET", arq_format.result_key(job_id), result, "PX", int(self.queue.keep_s * 1_000)),
            ("ZREM", arq_format.queue_key(self.queue.name), job_id),
            ("DEL", *_keys(job_id)),
        ]
        if channel := arq_format.reply_channel(job_id):
            commands.append(("PUBLISH", channel, arq_format.reply(job_id, result)))
        commands.append(("EXEC",))
        async with asyncio.timeout(FINISH_PATIENCE_S):
            while True:
                connection = await self._commands.wait()
                try:
                    await connection.ask(*commands)
                except Lost:
                    await asyncio.sleep(PAUSE_S)
                else:
                    return

    async def _forget(self, job_id: str) -> None:
        connection = await self._commands.wait()
        queue = arq_format.queue_key(self.queue.name)
        await connection.ask(("ZREM", queue, job_id), ("DEL", *_keys(job_id)))

    async def _put_back(self, job_id: str, job: Job, defer_ms: int) -> None:
        metrics.JOBS_DONE.labels(job.f, "retried").inc()
        connection = await self._commands.wait()
        await connection.ask(
            ("MULTI",),
            ("ZADD", arq_format.queue_key(self.queue.name), _now_ms() + defer_ms, job_id),
            ("DEL", arq_format.claim_key(job_id)),
            ("EXEC",),
        )

    async def _release(self, job_id: str) -> None:
        """Give a job we were stopped from finishing to the next worker at once."""
        metrics.JOBS_DONE.labels("any", "released").inc()
        attempts = arq_format.attempts_key(job_id)
        with suppress(*_TROUBLE):
            connection = self._commands.get()
            (owner,) = await connection.ask(("GET", arq_format.claim_key(job_id)))
            if owner == self.owner.encode():
                await connection.ask(
                    ("DEL", arq_format.claim_key(job_id)),
                    ("DECR", attempts),
                    ("EXPIRE", attempts, arq_format.ATTEMPTS_KEPT_S),
                    ("RPUSH", arq_format.ready_key(self.queue.name), job_id),
                )

    async def _drain(self) -> None:
        running_jobs = [run.task for run in self._runs.values()]
        if running_jobs:
            log.info("jobs.draining", queue=self.queue.name, jobs=len(running_jobs))
            await asyncio.wait(running_jobs, timeout=self.queue.drain_s)

    # -- staying alive -------------------------------------------------------------------------------------
    async def _beat(self) -> None:
        """Say that this worker lives and that its claims are still its own."""
        interval_s = self.lease_s / BEATS_PER_LEASE
        health = ("SET", arq_format.health_key(self.queue.name), self.owner, "PX", self._lease_ms)
        while True:
            try:
                connection = await self._commands.wait()
                claimed = [job_id for job_id, run in self._runs.items() if run.claimed]
                owners = await connection.ask(
                    health, *(("GET", arq_format.claim_key(job_id)) for job_id in claimed)
                )
                connection.send(("PING",), *self._renewals(claimed, owners[1:]))
            except _TROUBLE as e:
                log.warning("jobs.beat_failed", queue=self.queue.name, error=str(e))
                await asyncio.sleep(PAUSE_S)
                continue
            await asyncio.sleep(interval_s)

    def _renewals(self, claimed: Sequence[str], owners: Sequence[bytes | None]) -> list[Command]:
        renewals: list[Command] = []
        for job_id, owner in zip(claimed, owners, strict=True):
            key = arq_format.claim_key(job_id)
            run = self._runs.get(job_id)
            if run is None:
                continue
            if owner is None:
                # Redis was emptied, or we were stopped for longer than the lease and nobody took over.
                renewals.append(("SET", key, self.owner, "NX", "PX", self._lease_ms))
            elif owner == self.owner.encode():
                renewals.append(("PEXPIRE", key, self._lease_ms))
            else:
                log.warning("jobs.claim_lost", job=job_id, owner=owner.decode(errors="replace"))
                run.deserted = True
                run.task.cancel()
        return renewals

    @property
    def _lease_ms(self) -> int:
        return int(self.lease_s * 1_000)


class RedisJobRunner:
    """The `JobRunner` port on Redis."""

    def __init__(self, redis: RedisSettings, lease_s: float = LEASE_S) -> None:
        self._redis = redis
        self._lease_s = lease_s

    async def run(
        self, queue: QueueLimits, functions: Sequence[JobFunction], report: Report, stop: asyncio.Event
    ) -> None:
        known = {function.name: arq_function(function) for function in functions}
        worker = QueueWorker(self._redis, queue, known, report, self._lease_s)
        log.info("jobs.serving", queue=queue.name, functions=sorted(known))
        await worker.run(stop)


def arq_function(function: JobFunction) -> Function:
    """Return it as arq's own worker takes it."""
    return func(
        function.run,  # type: ignore[arg-type]
        name=function.name,
        timeout=function.timeout_s,
        max_tries=function.tries,
    )


def _keys(job_id: str) -> tuple[str, str, str]:
    return arq_format.claim_key(job_id), arq_format.attempts_key(job_id), arq_format.job_key(job_id)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def open_job_runner(settings: Settings, _services: Mapping[str, Any]) -> AsyncIterator[RedisJobRunner]:
    yield RedisJobRunner(settings.redis)
