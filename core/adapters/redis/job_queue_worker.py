"""The worker's side of the job queue: arq's formats and functions, woken by a list instead of polling.

A blocking pop on `<queue>:ready` brings job ids the moment they are asked. The list is only a hint: the sorted set
is the truth, and a slow sweep over it finds what no hint announced: lost hints, deferred jobs, stock producers.
A claim carries its owner and a short lease that a heartbeat renews, so a killed worker's job runs again in seconds.
"""

import asyncio
import random
import secrets
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import structlog
from arq.worker import Function, Retry, func

from core.adapters.redis import job_queue_format as arq_format
from core.adapters.redis.connection import Connection
from core.adapters.redis.job_queue_ending import PAUSE_S, TROUBLE, Endings
from core.adapters.redis.job_queue_format import Job
from core.adapters.redis.job_queue_heartbeat import Heartbeat
from core.adapters.redis.job_queue_log import write_ended
from core.adapters.redis.job_queue_run import Attempt, Outcome, Progress, Report, Run, now_ms
from core.adapters.redis.job_queue_schedule import Scheduler
from core.adapters.redis.link import Link, running
from core.errors.exceptions import Corrupt, Defect, TickgateError, Unavailable
from core.messages.dead_letters import DeadLetter
from core.messages.jobs import CANCELLED, ErrorReport
from core.model.retries import RetryClass, Verdict, judge
from core.ports.jobs import JobFunction, QueueLimits, Schedule
from core.settings import RedisSettings, Settings
from core.telemetry import metrics, tracing

log = structlog.get_logger(__name__)

LEASE_S: Final = 5.0
SWEEP_INTERVAL_S: Final = 1.0
HINT_GRACE_MS: Final = 1_000
"""A job this young is probably on its way through the hint list."""
SWEPT_MAX: Final = 500
POP_BLOCKS_S: Final = 5
BACKOFF_S_MIN: Final = 1.0
BACKOFF_S_MAX: Final = 60.0
UNKNOWN: Final = "unknown"
GAVE_UP: Final = "JOB_GAVE_UP"
LETTER_RANDOM_BYTES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A function of this worker, and how its failures are treated."""

    function: Function
    retry: RetryClass


@dataclass(slots=True)
class QueueWorker:
    """Works one queue off."""

    redis: RedisSettings
    queue: QueueLimits
    functions: Mapping[str, Known]
    report: Report
    schedules: Sequence[Schedule] = ()
    lease_s: float = LEASE_S
    owner: str = field(default_factory=lambda: f"{socket.gethostname()}:{secrets.token_hex(6)}")
    _runs: dict[str, Run] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _commands: Link = field(init=False)
    _pops: Link = field(init=False)
    _cancellations: Link = field(init=False)
    _endings: Endings = field(init=False)

    def __post_init__(self) -> None:
        self._commands = Link(self.redis, "jobs")
        self._pops = Link(self.redis, "hints", blocking_s=POP_BLOCKS_S)
        self._cancellations = Link(
            self.redis, "cancellations", on_message=self._cancel, on_connect=self._subscribe
        )
        self._endings = Endings(self._commands, self.queue, self.owner)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`, then let what runs come to its end for as long as the queue allows."""
        heartbeat = Heartbeat(self._commands, self.queue.name, self.owner, self.lease_s, self._runs)
        async with running(self._commands, self._pops, self._cancellations):
            taking = [asyncio.create_task(self._take_hints()), asyncio.create_task(self._sweep())]
            if self.schedules:
                scheduler = Scheduler(self._commands, self.owner, self.schedules)
                taking.append(asyncio.create_task(scheduler.run()))
            beating = asyncio.create_task(heartbeat.run())
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
                await heartbeat.say_goodbye()

    # -- finding work --------------------------------------------------------------------------------------
    async def _take_hints(self) -> None:
        ready = arq_format.ready_key(self.queue.name)
        while True:
            free = await self._free_places()
            connection = await self._pops.wait()
            try:
                (popped,) = await connection.ask(("BLMPOP", POP_BLOCKS_S, 1, ready, "LEFT", "COUNT", free))
            except TROUBLE as e:
                log.warning("jobs.hints_away", queue=self.queue.name, error=str(e))
                await asyncio.sleep(PAUSE_S)
                continue
            for job_id in popped[1] if popped else ():
                self._start(job_id.decode())
            # Their claims leave before the next pop does.
            await asyncio.sleep(0)

    async def _sweep(self) -> None:
        key = arq_format.queue_key(self.queue.name)
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            until_ms = now_ms() - HINT_GRACE_MS
            try:
                connection = await self._commands.wait()
                (due,) = await connection.ask(("ZRANGEBYSCORE", key, "-inf", until_ms, "LIMIT", 0, SWEPT_MAX))
                ids = [job_id.decode() for job_id in due]
                if not ids:
                    continue
                claims = await connection.ask(*(("EXISTS", arq_format.claim_key(job_id)) for job_id in ids))
            except TROUBLE as e:
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
            self._runs[job_id] = Run(asyncio.create_task(self._attempt(job_id)))

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
                await self._endings.release(job_id)
            raise
        except TROUBLE as e:
            log.warning("jobs.attempt_lost", job=job_id, error=str(e))
        except Exception as e:
            self.report(e, job=job_id)
        finally:
            del self._runs[job_id]
            self._changed.set()
            metrics.series(metrics.JOBS_RUNNING, self.queue.name).set(len(self._runs))

    async def _claim(self, job_id: str) -> tuple[bytes, int] | None:
        metrics.series(metrics.JOBS_RUNNING, self.queue.name).set(len(self._runs))
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
            await self._endings.forget(job_id)
            return None
        return body, attempt

    async def _execute(self, job_id: str, run: Run, body: bytes, number: int) -> None:
        try:
            job = arq_format.decode_job(body)
        except msgspec.DecodeError as e:
            job = Job(f=UNKNOWN, a=[], k={}, et=now_ms())
            attempt = Attempt(job_id, job, body, number, now_ms(), Progress(self._commands, job_id))
            outcome = self._failed(Corrupt("a job cannot be read", detail=str(e)), attempt)
        else:
            tracing.start(job.traceparent)
            attempt = Attempt(
                job_id, job, body, max(number, job.t or 0), now_ms(), Progress(self._commands, job_id)
            )
            waited_ms = max(0, attempt.started_at_ms - job.et)
            metrics.series(metrics.JOB_WAIT_SECONDS, self.queue.name).observe(waited_ms / 1_000)
            try:
                outcome = await self._outcome(run, attempt)
            except Retry as retry:
                await self._endings.put_back(job_id, job, (retry.defer_score or 0) / 1_000)
                return
        if not run.deserted:
            run.ending = True
            await self._end(attempt, outcome)

    async def _outcome(self, run: Run, attempt: Attempt) -> Outcome:
        job = attempt.job
        try:
            function = self._function(attempt)
            timeout_s = function.timeout_s or self.queue.timeout_s
            context = {"job_id": attempt.job_id, "job_try": attempt.number, "progress": attempt.progress}
            try:
                async with asyncio.timeout(timeout_s):
                    return Outcome(await function.coroutine(context, *job.a, **job.k))
            except TimeoutError as e:
                raise Unavailable(
                    f"the answer took longer than {timeout_s:g} s; ask for less", code="JOB_TIMEOUT"
                ) from e
        except Retry:
            raise
        except asyncio.CancelledError:
            if not run.cancelled or run.deserted:
                raise
            run.task.uncancel()
            log.info("jobs.cancelled", job=attempt.job_id, function=job.f)
            return Outcome(CANCELLED, ok=False)
        except Exception as e:
            return self._failed(e, attempt)

    def _failed(self, error: Exception, attempt: Attempt) -> Outcome:
        value = self.report(error, job=attempt.job_id, function=attempt.job.f, attempt=attempt.number)
        return Outcome(value, error, ok=False)

    def _function(self, attempt: Attempt) -> Function:
        job = attempt.job
        if attempt.started_at_ms - job.et > self.queue.expiry_s * 1_000:
            raise Unavailable("the question waited too long to be worth answering", code="JOB_EXPIRED")
        if job.f not in self.functions:
            # A newer gateway may know more than this worker while a new version is rolled out.
            raise Unavailable("no worker knows how to answer this yet", code="UNKNOWN_FUNCTION")
        if attempt.number > self._tries(job):
            raise Defect(f"gave up after {attempt.number - 1} attempts", code=GAVE_UP)
        return self.functions[job.f].function

    def _tries(self, job: Job) -> int:
        known = self.functions.get(job.f)
        return (known.function.max_tries if known else None) or self.queue.tries

    # -- ending a job --------------------------------------------------------------------------------------
    async def _end(self, attempt: Attempt, outcome: Outcome) -> None:
        job = attempt.job
        letter = None
        if outcome.error is not None:
            verdict = self._judge(attempt, outcome)
            if verdict is Verdict.AGAIN:
                await self._endings.put_back(attempt.job_id, job, _backoff_s(attempt.number))
                return
            if verdict is Verdict.BURY:
                letter = await self._letter(attempt, outcome)
        ended_at_ms = now_ms()
        function = job.f if job.f in self.functions else UNKNOWN
        metrics.series(metrics.JOB_RUN_SECONDS, function).observe(
            (ended_at_ms - attempt.started_at_ms) / 1_000
        )
        metrics.series(metrics.JOBS_DONE, function, _word(outcome)).inc()
        write_ended(attempt, _word(outcome), ended_at_ms)
        result = arq_format.encode_result(
            job,
            outcome.value,
            job_id=attempt.job_id,
            queue=self.queue.name,
            attempt=attempt.number,
            started_at_ms=attempt.started_at_ms,
            ended_at_ms=ended_at_ms,
            ok=outcome.ok,
        )
        plain = attempt.number == 1 and not attempt.progress.told
        await self._endings.finish(attempt.job_id, result, letter, plain=plain)

    def _judge(self, attempt: Attempt, outcome: Outcome) -> Verdict:
        known = self.functions.get(attempt.job.f)
        retry = known.retry if known else self.queue.retry
        tries = self._tries(attempt.job)
        return judge(outcome.value.category, retry, attempt=attempt.number, tries=tries)

    async def _letter(self, attempt: Attempt, outcome: Outcome) -> DeadLetter:
        told: ErrorReport = outcome.value
        code = outcome.error.code if isinstance(outcome.error, TickgateError) else told.code
        metrics.DEAD_LETTERS.labels(self.queue.name, told.category).inc()
        first_failed_at_ms = await self._endings.first_failed_at_ms(attempt.job_id)
        at_ms = now_ms()
        return DeadLetter(
            id=f"{at_ms:011x}{secrets.token_hex(LETTER_RANDOM_BYTES)}",
            job_id=attempt.job_id,
            queue=self.queue.name,
            function=attempt.job.f,
            tenant=attempt.job.tenant,
            job=attempt.body,
            # The attempt that gave up never began.
            attempts=attempt.number - 1 if code == GAVE_UP else attempt.number,
            category=told.category,
            code=code,
            public=told.public,
            fingerprint=told.fingerprint,
            traceparent=attempt.job.traceparent,
            first_failed_at_ms=first_failed_at_ms or at_ms,
            last_failed_at_ms=at_ms,
        )

    async def _drain(self) -> None:
        running_jobs = [run.task for run in self._runs.values()]
        if running_jobs:
            log.info("jobs.draining", queue=self.queue.name, jobs=len(running_jobs))
            await asyncio.wait(running_jobs, timeout=self.queue.drain_s)

    # -- being told ----------------------------------------------------------------------------------------
    async def _subscribe(self, connection: Connection) -> None:
        await connection.ask(("SUBSCRIBE", arq_format.cancel_channel(self.queue.name)))

    def _cancel(self, job_id: bytes) -> None:
        # One that is only just being claimed is found by the heartbeat.
        if run := self._runs.get(job_id.decode(errors="replace")):
            run.cancel()

    @property
    def _lease_ms(self) -> int:
        return int(self.lease_s * 1_000)


class RedisJobRunner:
    """The `JobRunner` port on Redis."""

    def __init__(self, redis: RedisSettings, lease_s: float = LEASE_S) -> None:
        self._redis = redis
        self._lease_s = lease_s

    async def run(
        self,
        queue: QueueLimits,
        functions: Sequence[JobFunction],
        report: Report,
        stop: asyncio.Event,
        schedules: Sequence[Schedule] = (),
    ) -> None:
        known = {
            function.name: Known(function=arq_function(function), retry=function.retry or queue.retry)
            for function in functions
        }
        worker = QueueWorker(self._redis, queue, known, report, schedules, self._lease_s)
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


def _backoff_s(attempt: int) -> float:
    # Jitter, so that jobs that failed together do not come back together.
    return float(min(BACKOFF_S_MIN * 2 ** (attempt - 1), BACKOFF_S_MAX) * random.uniform(0.5, 1.0))  # noqa: S311


def _word(outcome: Outcome) -> str:
    if outcome.ok:
        return "finished"
    return "failed" if outcome.error is not None else "cancelled"


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def open_job_runner(settings: Settings, _services: Mapping[str, Any]) -> AsyncIterator[RedisJobRunner]:
    yield RedisJobRunner(settings.redis)
