"""Look at queues and jobs from outside, cancel a job, ask one again, and carry dead letters out."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from core.adapters.redis import job_queue_format as arq_format
from core.adapters.redis.connection import Command
from core.adapters.redis.job_queue import RedisJobQueue, enqueueing
from core.adapters.redis.job_queue_ending import finishing
from core.adapters.redis.job_queue_format import Job
from core.adapters.redis.job_queue_run import now_ms
from core.errors.exceptions import Conflict, Corrupt
from core.messages.codec import encode
from core.messages.jobs import CANCELLED, JOBS, JobState, JobStatus
from core.messages.queues import QueueStanding
from core.settings import Settings

QUEUES: Final = tuple(sorted({kind.queue for kind in JOBS.values()}))
CANCELLER: Final = "cancelled"
CANCELLING_MS: Final = 5_000
"""How long a cancelled job that waits is held back from workers; it is gone long before."""
CANCELLED_KEPT_S: Final = 600.0
ABORTED_KEPT_MS: Final = 3_600_000
ASKED_PER_QUEUE: Final = 5
STOCK_HEALTH: Final = b"j_complete="
"""A stock worker leaves nothing but its sign of life, with these words in it; ours leave their name there."""


class RedisQueueControl:
    """The `QueueControl` port, over the connection of a `RedisJobQueue`."""

    def __init__(self, queue: RedisJobQueue) -> None:
        self._queue = queue

    async def standings(self) -> Sequence[QueueStanding]:
        found = await self._queue.command(*(command for name in QUEUES for command in _looking(name)))
        rows = [found[start : start + ASKED_PER_QUEUE] for start in range(0, len(found), ASKED_PER_QUEUE)]
        loads = await self._loads({name: row[2] for name, row in zip(QUEUES, rows, strict=True)})
        return [_standing(name, row, loads[name]) for name, row in zip(QUEUES, rows, strict=True)]

    async def cancel(self, job_id: str, *, tenant: str) -> JobState:
        state = await self._queue.state(job_id, tenant=tenant)
        if state.status not in {JobStatus.QUEUED, JobStatus.RUNNING}:
            raise Conflict("the job has ended already", code="JOB_ENDED")
        claim = arq_format.claim_key(job_id)
        # Whoever holds the claim decides; held by us, no worker starts it any more.
        won, body, *scores = await self._queue.command(
            ("SET", claim, CANCELLER, "NX", "PX", CANCELLING_MS),
            ("GET", arq_format.job_key(job_id)),
            *(("ZSCORE", arq_format.queue_key(name), job_id) for name in QUEUES),
        )
        queue = next((name for name, score in zip(QUEUES, scores, strict=True) if score is not None), None)
        if body is None or queue is None:
            if won:
                await self._queue.command(("DEL", claim))
            raise Conflict("the job has ended already", code="JOB_ENDED")
        if won:
            return await self._end(job_id, queue, arq_format.decode_job(body))
        at_ms = now_ms()
        await self._queue.command(
            ("ZADD", arq_format.ABORTED_KEY, at_ms, job_id),
            ("ZREMRANGEBYSCORE", arq_format.ABORTED_KEY, "-inf", at_ms - ABORTED_KEPT_MS),
            ("PUBLISH", arq_format.cancel_channel(queue), job_id),
        )
        return state

    async def put(self, job_id: str, queue: str, job: bytes) -> None:
        try:
            again = msgspec.structs.replace(arq_format.decode_job(job), et=now_ms(), t=None)
        except msgspec.DecodeError as e:
            raise Corrupt("the job cannot be read, so it cannot be asked again", detail=str(e)) from e
        await self._queue.command(*enqueueing(queue, job_id, encode(again)))

    async def buried(self, queue: str, count_max: int) -> Sequence[bytes]:
        (letters,) = await self._queue.command(("LRANGE", arq_format.dead_key(queue), 0, count_max - 1))
        return list(letters)

    async def forget_buried(self, queue: str, letters: Sequence[bytes]) -> None:
        if letters:
            key = arq_format.dead_key(queue)
            await self._queue.command(*(("LREM", key, 1, letter) for letter in letters))

    async def _end(self, job_id: str, queue: str, job: Job) -> JobState:
        ended_at_ms = now_ms()
        result = arq_format.encode_result(
            job,
            CANCELLED,
            job_id=job_id,
            queue=queue,
            attempt=0,
            started_at_ms=ended_at_ms,
            ended_at_ms=ended_at_ms,
            ok=False,
        )
        await self._queue.command(*finishing(queue, CANCELLED_KEPT_S, job_id, result))
        return arq_format.state_of(arq_format.decode_result(result))

    async def _loads(self, owners: Mapping[str, Sequence[bytes]]) -> dict[str, list[int]]:
        """Return, by queue, how many jobs each living worker has in hand."""
        keys = [(name, arq_format.worker_key(name, one.decode())) for name in owners for one in owners[name]]
        loads: dict[str, list[int]] = {name: [] for name in owners}
        if keys:
            found = await self._queue.command(*(("GET", key) for _, key in keys))
            for (name, _), load in zip(keys, found, strict=True):
                if load is not None:
                    loads[name].append(int(load))
        return loads


def _looking(queue: str) -> tuple[Command, ...]:
    key = arq_format.queue_key(queue)
    return (
        ("ZCARD", key),
        ("ZRANGE", key, 0, 0, "WITHSCORES"),
        ("ZRANGE", arq_format.workers_key(queue), 0, -1),
        ("LLEN", arq_format.dead_key(queue)),
        ("GET", arq_format.health_key(queue)),
    )


def _standing(name: str, row: Sequence[Any], loads: Sequence[int]) -> QueueStanding:
    depth, oldest, _, dead, health = row
    age_s = time.time() - float(oldest[1]) / 1_000 if oldest else -1.0
    return QueueStanding(
        name=name,
        depth=depth,
        oldest_age_s=round(age_s, 3) if age_s >= 0 else None,
        in_progress=sum(loads),
        workers_alive=len(loads) or int(STOCK_HEALTH in (health or b"")),
        dead_letters_waiting=dead,
    )


@asynccontextmanager
async def open_queue_control(
    _settings: Settings, services: Mapping[str, Any]
) -> AsyncIterator[RedisQueueControl]:
    yield RedisQueueControl(services["job_queue"])
