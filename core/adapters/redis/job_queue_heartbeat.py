"""A worker's heartbeat: it lives, its claims are its own, and jobs somebody wants to end are found."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from core.adapters.redis import job_queue_format as arq_format
from core.adapters.redis.connection import Command
from core.adapters.redis.job_queue_ending import PAUSE_S, TROUBLE
from core.adapters.redis.job_queue_run import Run, now_ms
from core.adapters.redis.link import Link

log = structlog.get_logger(__name__)

BEATS_PER_LEASE: Final = 3
FORGOTTEN_AFTER_MS: Final = 3_600_000
"""Names of workers that have not been heard of for so long are dropped, whatever their clocks say."""


class Heartbeat:
    """Beats for one worker. runs: what it has in hand, by job id."""

    def __init__(
        self, commands: Link, queue: str, owner: str, lease_s: float, runs: Mapping[str, Run]
    ) -> None:
        self._commands = commands
        self._queue = queue
        self._owner = owner
        self._lease_s = lease_s
        self._lease_ms = int(lease_s * 1_000)
        self._runs = runs

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            try:
                await self._beat()
            except TROUBLE as e:
                log.warning("jobs.beat_failed", queue=self._queue, error=str(e))
                await asyncio.sleep(PAUSE_S)
            else:
                await asyncio.sleep(self._lease_s / BEATS_PER_LEASE)

    async def say_goodbye(self) -> None:
        """Be counted no longer."""
        try:
            self._commands.get().send(
                ("DEL", arq_format.worker_key(self._queue, self._owner)),
                ("ZREM", arq_format.workers_key(self._queue), self._owner),
                ("PING",),
            )
        except TROUBLE:
            # The lease runs out by itself.
            return

    async def _beat(self) -> None:
        connection = await self._commands.wait()
        claimed = [job_id for job_id, run in self._runs.items() if run.claimed]
        workers = arq_format.workers_key(self._queue)
        at_ms = now_ms()
        _, _, _, _, *found = await connection.ask(
            ("SET", arq_format.health_key(self._queue), self._owner, "PX", self._lease_ms),
            ("SET", arq_format.worker_key(self._queue, self._owner), len(claimed), "PX", self._lease_ms),
            ("ZADD", workers, at_ms, self._owner),
            ("ZREMRANGEBYSCORE", workers, "-inf", at_ms - FORGOTTEN_AFTER_MS),
            *(("GET", arq_format.claim_key(job_id)) for job_id in claimed),
            *([("ZMSCORE", arq_format.ABORTED_KEY, *claimed)] if claimed else ()),
        )
        if not claimed:
            return
        *owners, unwanted = found
        connection.send(("PING",), *self._renewals(claimed, owners))
        for job_id, asked_at in zip(claimed, unwanted, strict=True):
            if asked_at is not None and job_id in self._runs:
                self._runs[job_id].cancel()

    def _renewals(self, claimed: Sequence[str], owners: Sequence[bytes | None]) -> list[Command]:
        renewals: list[Command] = []
        for job_id, owner in zip(claimed, owners, strict=True):
            key = arq_format.claim_key(job_id)
            run = self._runs.get(job_id)
            if run is None:
                continue
            if owner is None:
                # Redis was emptied, or we were stopped for longer than the lease and nobody took over.
                renewals.append(("SET", key, self._owner, "NX", "PX", self._lease_ms))
            elif owner == self._owner.encode():
                renewals.append(("PEXPIRE", key, self._lease_ms))
            else:
                log.warning("jobs.claim_lost", job=job_id, owner=owner.decode(errors="replace"))
                run.desert()
        return renewals
