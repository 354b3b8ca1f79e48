"""Scheduled jobs: asked once in every slot, by whichever worker comes first.

The slot is counted on Redis' own clock, so workers whose clocks differ agree on it. Whoever takes its marker asks; a
slot that nobody took while it lasted is not made up for, and a job not started within its slot is dropped.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from core.adapters.redis import job_queue_format as arq_format
from core.adapters.redis.connection import Command, Connection
from core.adapters.redis.job_queue_ending import PAUSE_S, TROUBLE
from core.adapters.redis.job_queue_format import Job
from core.adapters.redis.link import Link
from core.messages.codec import encode
from core.ports.jobs import Schedule
from core.telemetry import metrics

log = structlog.get_logger(__name__)

MARKER_SLOTS: Final = 2
LATE_S: Final = 0.01
"""After a slot's beginning, so that rounding does not wake us before it."""


class Scheduler:
    """Takes slots of one queue's schedules for one worker."""

    def __init__(self, commands: Link, owner: str, schedules: Sequence[Schedule]) -> None:
        self._commands = commands
        self._owner = owner
        self._schedules = schedules
        self._seen: dict[str, int] = {}

    async def run(self) -> None:
        """Ask what is due until cancelled."""
        while True:
            try:
                connection = await self._commands.wait()
                (clock,) = await connection.ask(("TIME",))
                now_s = int(clock[0]) + int(clock[1]) / 1e6
                for schedule in self._schedules:
                    await self._ask_once(connection, schedule, now_s)
            except TROUBLE as e:
                log.warning("jobs.schedule_waits", error=str(e))
                await asyncio.sleep(PAUSE_S)
                continue
            await asyncio.sleep(LATE_S + min(one.every_s - now_s % one.every_s for one in self._schedules))

    async def _ask_once(self, connection: Connection, schedule: Schedule, now_s: float) -> None:
        slot = int(now_s // schedule.every_s)
        if self._seen.get(schedule.function, -1) >= slot:
            return
        marker = arq_format.slot_key(schedule.queue, schedule.function, slot)
        (won,) = await connection.ask(
            ("SET", marker, self._owner, "NX", "PX", schedule.every_s * MARKER_SLOTS * 1_000)
        )
        self._seen[schedule.function] = slot
        if won is None:
            return
        await connection.ask(*_asking(schedule, slot, now_s))
        metrics.JOBS_ASKED.labels(schedule.function).inc()


def _asking(schedule: Schedule, slot: int, now_s: float) -> tuple[Command, ...]:
    job_id = f"{arq_format.SCHEDULED_PREFIX}{schedule.function}.{slot}"
    now_ms = int(now_s * 1_000)
    job = Job(f=schedule.function, a=[{}], k={"tenant": "", "traceparent": ""}, et=now_ms)
    return (
        ("SET", arq_format.job_key(job_id), encode(job), "PX", schedule.every_s * 1_000),
        ("ZADD", arq_format.queue_key(schedule.queue), now_ms, job_id),
        ("RPUSH", arq_format.ready_key(schedule.queue), job_id),
    )
