"""The asker's side of the job queue: one round trip to enqueue, one standing subscription to hear every answer.

A message can be lost with the subscription, and a job with an emptied Redis. So whoever waits is looked after: a
result that is there is fetched, and a job that is nowhere any more is given to the queue again.
"""

import asyncio
import itertools
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import hiredis
import structlog
from arq.constants import default_queue_name

from core.adapters.redis import job_queue_format as arq_format
from core.adapters.redis.connection import Command, Connection, Lost
from core.adapters.redis.job_queue_format import Job
from core.adapters.redis.job_queue_left import LeftJobs
from core.adapters.redis.link import Link, running
from core.errors.exceptions import NotFound, Unavailable
from core.messages.codec import encode
from core.messages.jobs import JOBS, Answer, ErrorReport, JobState, JobStatus, raised_from
from core.messages.message import Message
from core.settings import RedisSettings, Settings
from core.telemetry import metrics
from core.telemetry.tracing import current_traceparent

log = structlog.get_logger(__name__)

assert arq_format.queue_key("").startswith(default_queue_name), "our queues are named as arq names its own"

JOB_KEPT_MS: Final = 3_600_000
WAITING_MAX: Final = 10_000
"""Jobs one queue may hold; more would only be answered after their callers have gone."""
COMMAND_TIMEOUT_S: Final = 1.0
"""Not the caller's patience: whoever does not want to wait still wants the job."""
ENQUEUE_PATIENCE_S: Final = 2.0
"""A Redis that restarts or fails over costs its callers this much time before it costs them an error."""
ENQUEUE_PAUSE_S: Final = 0.05
LOOK_INTERVAL_S: Final = 1.0
LOOKED_AFTER_MAX: Final = 256
"""Waiting jobs looked after at a time, so that a stall does not become a storm of commands."""
HUB_ID_BYTES: Final = 8


@dataclass(slots=True)
class _Waiting:
    """A job somebody awaits here. answered: given the encoded result."""

    queue: str
    body: bytes
    answered: asyncio.Future[bytes]
    asked_at_s: float


class RedisJobQueue:
    """The `JobQueue` port on Redis."""

    def __init__(self, redis: RedisSettings) -> None:
        self._hub = secrets.token_hex(HUB_ID_BYTES)
        self._numbers = itertools.count(1)
        self._waiting: dict[str, _Waiting] = {}
        self._crowded: set[str] = set()
        self._look = asyncio.Event()
        self.left = LeftJobs()
        self.commands = Link(redis, "jobs")
        self.replies = Link(redis, "replies", on_message=self._hear, on_connect=self._subscribe)

    async def ask(self, function: str, request: Message, *, tenant: str, timeout_ms: int) -> Answer | str:
        queue = JOBS[function].queue
        self.left.require_room(tenant)
        job_id = f"{self._hub}:{next(self._numbers)}"
        body = encode(_job(function, request, tenant))
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[bytes] = loop.create_future()
        self._waiting[job_id] = _Waiting(queue, body, answered, time.monotonic())
        try:
            await self._enqueue(queue, job_id, body)
            metrics.series(metrics.JOBS_ASKED, function).inc()
            timer = loop.call_later(timeout_ms / 1_000, _stop_waiting, answered)
            try:
                result = await answered
            finally:
                timer.cancel()
        finally:
            self._waiting.pop(job_id, None)
        if not result:
            metrics.JOBS_OUTLASTED.labels(function).inc()
            self.commands.get()
            self.left.leave(job_id, tenant)
            return job_id
        return self._deliver(job_id, result)

    async def state(self, job_id: str, *, tenant: str) -> JobState:
        result, body, claimed, attempts, progress = await self.command(
            ("GET", arq_format.result_key(job_id)),
            ("GET", arq_format.job_key(job_id)),
            ("EXISTS", arq_format.claim_key(job_id)),
            ("GET", arq_format.attempts_key(job_id)),
            ("GET", arq_format.progress_key(job_id)),
        )
        if result is not None:
            finished = arq_format.decode_result(result)
            if finished.tenant == tenant:
                return arq_format.state_of(finished)
        elif body is not None:
            job = arq_format.decode_job(body)
            if job.tenant == tenant:
                return JobState(
                    id=job_id,
                    function=job.f,
                    status=JobStatus.RUNNING if claimed else JobStatus.QUEUED,
                    attempts=int(attempts or 0),
                    enqueued_at_ms=job.et,
                    progress=arq_format.decode_progress(progress) if progress is not None else None,
                )
        raise NotFound("there is no such job, or its answer is no longer kept", code="JOB_NOT_FOUND")

    async def served(self, queue: str) -> bool:
        (alive,) = await self.command(("EXISTS", arq_format.health_key(queue)))
        return bool(alive)

    async def look_after(self) -> None:
        """Watch over waiting jobs until cancelled: at intervals, and at once when the subscription is back."""
        while True:
            try:
                async with asyncio.timeout(LOOK_INTERVAL_S):
                    await self._look.wait()
                oldest_s = 0.0
            except TimeoutError:
                oldest_s = LOOK_INTERVAL_S
            self._look.clear()
            try:
                await self._look_at_waiting(oldest_s)
                await self._look_at_left()
            except (Unavailable, Lost, hiredis.ReplyError) as e:
                log.debug("jobs.cannot_look", error=str(e))

    def _deliver(self, job_id: str, result: bytes) -> Answer:
        # Its caller has it in hand and never learnt the job's id: nobody can ask for it again.
        self._send(("UNLINK", arq_format.result_key(job_id)))
        outcome = arq_format.answer_of(arq_format.decode_result(result))
        if isinstance(outcome, ErrorReport):
            raise raised_from(outcome)
        return outcome

    async def _enqueue(self, queue: str, job_id: str, body: bytes) -> None:
        if queue in self._crowded:
            await self._require_room(queue)
        until_s = time.monotonic() + ENQUEUE_PATIENCE_S
        while True:
            try:
                # Put in again, it is the same job still: it is there once.
                _, _, hints = await self.command(*enqueueing(queue, job_id, body))
            except Unavailable:
                if time.monotonic() >= until_s:
                    raise
                await asyncio.sleep(ENQUEUE_PAUSE_S)
            else:
                break
        if hints > WAITING_MAX:
            self._crowded.add(queue)

    async def _require_room(self, queue: str) -> None:
        (waiting,) = await self.command(("ZCARD", arq_format.queue_key(queue)))
        if waiting > WAITING_MAX:
            raise Unavailable("too many questions are waiting; try again soon", code="QUEUE_FULL")
        self._crowded.discard(queue)

    async def command(self, *commands: Command) -> list[Any]:
        """Return the commands' answers. Raises: Unavailable."""
        try:
            return await self.commands.get().ask_within(COMMAND_TIMEOUT_S, *commands)
        except (Lost, hiredis.ReplyError, TimeoutError) as e:
            raise Unavailable("the job queue does not answer", code="QUEUE_UNAVAILABLE", detail=str(e)) from e

    def _send(self, *commands: Command) -> None:
        try:
            self.commands.get().send(*commands)
        except Unavailable:
            return

    async def _subscribe(self, connection: Connection) -> None:
        await connection.ask(("SUBSCRIBE", f"arq:reply:{self._hub}"))
        self._look.set()

    def _hear(self, message: bytes) -> None:
        job_id, result = arq_format.parse_reply(message)
        waiting = self._waiting.get(job_id)
        if waiting is None:
            self.left.end(job_id)
            return
        if waiting.answered.done():
            return
        if result:
            waiting.answered.set_result(result)
        else:
            self._look.set()

    async def _look_at_waiting(self, age_s_min: float) -> None:
        since_s = time.monotonic() - age_s_min
        old = [(key, one) for key, one in self._waiting.items() if one.asked_at_s <= since_s]
        for job_id, waiting in old[:LOOKED_AFTER_MAX]:
            if waiting.answered.done():
                continue
            # In this order: a job that ends between the two questions has its result when it is asked for.
            alive, result = await self.command(
                ("EXISTS", arq_format.job_key(job_id), arq_format.claim_key(job_id)),
                ("GET", arq_format.result_key(job_id)),
            )
            if result is not None and not waiting.answered.done():
                waiting.answered.set_result(result)
            elif not alive and result is None and job_id in self._waiting:
                metrics.JOBS_RESTORED.inc()
                log.warning("jobs.restored", job=job_id, queue=waiting.queue)
                await self.command(*enqueueing(waiting.queue, job_id, waiting.body))

    async def _look_at_left(self) -> None:
        """Let go of the oldest answers of a tenant that lets too many lie."""
        tenants = self.left.take_ended()
        if not tenants:
            return
        sizes = await self.command(*(("STRLEN", arq_format.result_key(job_id)) for job_id in tenants))
        ended: dict[str, list[tuple[str, int]]] = {}
        for (job_id, tenant), size_bytes in zip(tenants.items(), sizes, strict=True):
            ended.setdefault(tenant, []).append((job_id, size_bytes))
        for tenant, found in ended.items():
            if dropped := self.left.keep(tenant, found):
                log.warning("jobs.answers_dropped", tenant=tenant, answers=len(dropped))
                self._send(("UNLINK", *(arq_format.result_key(job_id) for job_id in dropped)))


def _stop_waiting(answered: asyncio.Future[bytes]) -> None:
    # No result is empty.
    if not answered.done():
        answered.set_result(b"")


def _job(function: str, request: Message, tenant: str) -> Job:
    keywords = {"tenant": tenant, "traceparent": current_traceparent()}
    return Job(f=function, a=[request], k=keywords, et=time.time_ns() // 1_000_000)


def enqueueing(queue: str, job_id: str, body: bytes) -> tuple[Command, ...]:
    """Return the commands that put a job into a queue; the last answers how many hints wait."""
    now_ms = time.time_ns() // 1_000_000
    return (
        ("SET", arq_format.job_key(job_id), body, "PX", JOB_KEPT_MS),
        ("ZADD", arq_format.queue_key(queue), now_ms, job_id),
        ("RPUSH", arq_format.ready_key(queue), job_id),
    )


@asynccontextmanager
async def open_job_queue(settings: Settings, _services: Mapping[str, Any]) -> AsyncIterator[RedisJobQueue]:
    """Open the queue. An absent Redis is no reason not to start: asking raises Unavailable until it is there."""
    queue = RedisJobQueue(settings.redis)
    async with running(queue.commands, queue.replies):
        looking = asyncio.create_task(queue.look_after())
        try:
            yield queue
        finally:
            looking.cancel()
