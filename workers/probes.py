"""Every queue answers its probe; the chain worker sends one through each, and samples how the queues stand."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from core.errors.exceptions import TickgateError, Unavailable
from core.infrastructure.central_hub import Hub
from core.messages.jobs import Answer, Probe
from core.ports.jobs import JobFunction, JobQueue, QueueControl
from core.settings import Settings
from core.telemetry import metrics, tracing
from workers.queues import QUEUES

log = structlog.get_logger(__name__)

PROBE_TIMEOUT_S: Final = 5.0
OBJECTIVE_S: Final = 0.25
"""A probe's round trip; a queue that takes longer has too few workers, or busy ones."""
ALIVE: Final = Answer(content_type="application/json", body=b'{"alive":true}')
DONE: Final = Answer(content_type="application/json", body=b"null")


async def answer_probe(_ctx: Mapping[str, Any], _request: Any, **_rest: Any) -> Answer:
    """Say that somebody is there."""
    return ALIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class Prober:
    """Sends probes and takes samples."""

    queue: JobQueue
    control: QueueControl

    async def probe_queues(self, _ctx: Mapping[str, Any], _request: Any, **_rest: Any) -> Answer:
        """Probe every queue at once, then sample."""
        tracing.start()
        await asyncio.gather(*(self._probe(queue) for queue in QUEUES))
        for standing in await self.control.standings():
            metrics.QUEUE_DEPTH.labels(standing.name).set(standing.depth)
            metrics.QUEUE_OLDEST_SECONDS.labels(standing.name).set(standing.oldest_age_s or 0)
            metrics.QUEUE_IN_PROGRESS.labels(standing.name).set(standing.in_progress)
            metrics.QUEUE_WORKERS.labels(standing.name).set(standing.workers_alive)
            metrics.DEAD_LETTERS_WAITING.labels(standing.name).set(standing.dead_letters_waiting)
        return DONE

    async def _probe(self, queue: str) -> None:
        started_s = time.perf_counter()
        try:
            answer = await self.queue.ask(
                f"{queue}.probe", Probe(), tenant="", timeout_ms=int(PROBE_TIMEOUT_S * 1_000)
            )
            if isinstance(answer, str):
                raise Unavailable("no worker answered the probe", code="PROBE_TIMEOUT")
        except TickgateError as e:
            metrics.QUEUE_PROBES_FAILED.labels(queue).inc()
            log.warning("queue.probe_failed", queue=queue, code=e.code, error=e.public)
            return
        elapsed_s = time.perf_counter() - started_s
        metrics.QUEUE_PROBE_SECONDS.labels(queue).observe(elapsed_s)
        if elapsed_s > OBJECTIVE_S:
            log.warning("queue.probe_slow", queue=queue, ms=round(elapsed_s * 1_000, 1))


def database_functions(_hub: Hub, _settings: Settings) -> Sequence[JobFunction]:
    return [JobFunction(name="database.probe", run=answer_probe)]


def trading_functions(_hub: Hub, _settings: Settings) -> Sequence[JobFunction]:
    return [JobFunction(name="trading.probe", run=answer_probe)]


def chain_functions(hub: Hub, _settings: Settings) -> Sequence[JobFunction]:
    """Return the functions of the queue that watches the others."""
    prober = Prober(queue=hub["job_queue"], control=hub["queue_control"])
    return [
        JobFunction(name="chain.probe", run=answer_probe),
        JobFunction(name="chain.probe_queues", run=prober.probe_queues),
    ]
