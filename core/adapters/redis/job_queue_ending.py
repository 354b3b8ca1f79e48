"""How a job leaves a worker: with a result, back into the queue, or to the next worker; each in one transaction.

What Redis does not take at first it is offered again for a while. A Redis that refuses writes for lack of memory still
delivers: the answer goes out to whoever waits, it is only not kept.
"""

import asyncio
from contextlib import suppress
from typing import Final

import hiredis
import structlog

from core.adapters.redis import job_queue_format as arq_format
from core.adapters.redis.connection import Command, Lost
from core.adapters.redis.job_queue_format import Job, Result
from core.adapters.redis.job_queue_run import now_ms
from core.adapters.redis.link import Link
from core.errors.categories import Category
from core.errors.exceptions import Unavailable
from core.messages.codec import encode
from core.messages.dead_letters import DeadLetter
from core.messages.jobs import ErrorReport
from core.ports.jobs import QueueLimits
from core.telemetry import metrics

log = structlog.get_logger(__name__)

PAUSE_S: Final = 0.2
FINISH_PATIENCE_S: Final = 60.0
"""How long an answer waits for Redis to come back before it is dropped; the job then runs again."""
BURIED_MAX: Final = 100_000
"""Dead letters a queue holds for a ledger that is away; the oldest go first."""
FAILED_KEPT_MS: Final = 86_400_000
OUT_OF_MEMORY: Final = "OOM"
TROUBLE: Final = (Lost, Unavailable, hiredis.ReplyError)
NOT_KEPT: Final = ErrorReport(
    category=Category.UNAVAILABLE,
    code="RESULT_NOT_KEPT",
    public="there was no room for the answer; try again",
)


class Endings:
    """Every way out. owner: in whose name jobs are claimed here."""

    def __init__(self, commands: Link, queue: QueueLimits, owner: str) -> None:
        self._commands = commands
        self._queue = queue
        self._owner = owner
        self._queue_key = arq_format.queue_key(queue.name)

    async def finish(
        self, job_id: str, result: bytes, letter: DeadLetter | None = None, *, plain: bool = False
    ) -> None:
        """Keep the result, forget the job, tell its asker, bury its dead letter: all of it or nothing.

        plain: the job came through at its first attempt and never said how far it was.
        """
        commands = finishing(self._queue.name, self._queue.keep_s, job_id, result, letter, plain=plain)
        # The patience is for trouble; its timer would be a good part of what a good end costs.
        with suppress(*TROUBLE):
            await self._commands.get().ask(*commands)
            return
        async with asyncio.timeout(FINISH_PATIENCE_S):
            while True:
                connection = await self._commands.wait()
                try:
                    await connection.ask(*commands)
                except Lost:
                    await asyncio.sleep(PAUSE_S)
                except hiredis.ReplyError as e:
                    if str(e).startswith(OUT_OF_MEMORY):
                        await self._finish_without_memory(job_id, result, letter)
                        return
                    log.warning("jobs.finish_refused", job=job_id, error=str(e))
                    await asyncio.sleep(PAUSE_S)
                else:
                    return

    async def _finish_without_memory(self, job_id: str, result: bytes, letter: DeadLetter | None) -> None:
        log.error("jobs.result_not_kept", job=job_id, queue=self._queue.name, buried=letter is not None)
        if len(result) > arq_format.INLINE_BYTES_MAX:
            result = _not_kept(result)
        commands: list[Command] = [("ZREM", self._queue_key, job_id), ("DEL", *arq_format.job_keys(job_id))]
        if channel := arq_format.reply_channel(job_id):
            commands.append(("PUBLISH", channel, arq_format.reply(job_id, result)))
        connection = await self._commands.wait()
        await connection.ask(*commands)

    async def forget(self, job_id: str) -> None:
        """Let go of an id that leads nowhere: a hint of a job that is done, or a job whose body has expired."""
        connection = await self._commands.wait()
        connection.send(("DEL", *arq_format.job_keys(job_id)), ("ZREM", self._queue_key, job_id))

    async def put_back(self, job_id: str, job: Job, defer_s: float) -> None:
        """Give it back to the queue, due in `defer_s`; its attempts so far count."""
        metrics.JOBS_DONE.labels(job.f, "retried").inc()
        connection = await self._commands.wait()
        await connection.ask(
            ("MULTI",),
            ("SET", arq_format.failed_key(job_id), now_ms(), "NX", "PX", FAILED_KEPT_MS),
            ("ZADD", self._queue_key, now_ms() + int(defer_s * 1_000), job_id),
            ("DEL", arq_format.claim_key(job_id)),
            ("EXEC",),
        )

    async def first_failed_at_ms(self, job_id: str) -> int | None:
        connection = await self._commands.wait()
        (found,) = await connection.ask(("GET", arq_format.failed_key(job_id)))
        return int(found) if found is not None else None

    async def release(self, job_id: str) -> None:
        """Give a job we were stopped from finishing to the next worker at once."""
        metrics.JOBS_DONE.labels("any", "released").inc()
        attempts = arq_format.attempts_key(job_id)
        with suppress(*TROUBLE):
            connection = self._commands.get()
            (owner,) = await connection.ask(("GET", arq_format.claim_key(job_id)))
            if owner == self._owner.encode():
                await connection.ask(
                    ("DEL", arq_format.claim_key(job_id)),
                    ("DECR", attempts),
                    ("EXPIRE", attempts, arq_format.ATTEMPTS_KEPT_S),
                    ("RPUSH", arq_format.ready_key(self._queue.name), job_id),
                )


def finishing(
    queue: str,
    keep_s: float,
    job_id: str,
    result: bytes,
    letter: DeadLetter | None = None,
    *,
    plain: bool = False,
) -> list[Command]:
    """Return the transaction that ends a job."""
    commands: list[Command] = [
        ("MULTI",),
        ("ZREM", arq_format.queue_key(queue), job_id),
        ("DEL", *arq_format.job_keys(job_id, plain=plain)),
    ]
    if not job_id.startswith(arq_format.SCHEDULED_PREFIX):
        commands.append(("SET", arq_format.result_key(job_id), result, "PX", int(keep_s * 1_000)))
    if letter is not None:
        key = arq_format.dead_key(queue)
        commands += [("RPUSH", key, encode(letter)), ("LTRIM", key, -BURIED_MAX, -1)]
    if channel := arq_format.reply_channel(job_id):
        commands.append(("PUBLISH", channel, arq_format.reply(job_id, result)))
    commands.append(("EXEC",))
    return commands


def _not_kept(result: bytes) -> bytes:
    told: Result = arq_format.decode_result(result)
    return arq_format.encode_result(
        Job(f=told.f, a=[], k={"tenant": told.tenant}, et=told.et),
        NOT_KEPT,
        job_id=told.id,
        queue=told.q.removeprefix(arq_format.queue_key("")),
        attempt=told.t,
        started_at_ms=told.st,
        ended_at_ms=told.ft,
        ok=False,
    )
