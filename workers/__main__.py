"""`python -m workers QUEUE`: the process that works one queue off."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import structlog
import uvloop

from core.errors.exceptions import Misconfigured, TickgateError
from core.infrastructure import error_handler
from core.infrastructure.central_hub import Hub, open_hub
from core.infrastructure.config_manager import load_settings
from core.infrastructure.health_watch import HealthWatch
from core.infrastructure.process import die_with_parent, return_large_buffers
from core.ports.jobs import QueueLimits
from core.settings import Settings
from core.telemetry import metrics
from core.telemetry.logs import configure_logging
from workers.health import serve_health
from workers.queues import QUEUES, SCHEDULES
from workers.workshops import WORKSHOPS, Rounds, functions_of, rounds_of

log = structlog.get_logger(__name__)

START_PATIENCE_S: Final = 60.0
GIVE_UP_INTERVAL_S: Final = 0.1


async def run(settings: Settings, queue: QueueLimits) -> None:
    """Serve until SIGTERM or SIGINT; one that still waits for its stores ends at once."""
    stop = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_number, stop.set)
    async with AsyncExitStack() as stack:
        opening = asyncio.create_task(
            stack.enter_async_context(
                open_hub(settings, WORKSHOPS[queue.name].needs, patience_s=START_PATIENCE_S)
            )
        )
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not opening.done():
            await _give_up(opening)
            return
        hub = opening.result()
        port = settings.worker.port_of(queue.name)
        watch = HealthWatch(hub, f"worker-{queue.name}")
        rounds = rounds_of(queue.name, hub, settings)
        await stack.enter_async_context(
            serve_health(settings.worker, port, lambda: _unhealthy(hub, queue, rounds), watch.report)
        )
        schedules = [schedule for schedule in SCHEDULES if schedule.queue == queue.name]
        served = functions_of(queue.name, hub, settings)
        if rounds is not None:
            await stack.enter_async_context(_going_on(rounds))
        await hub["job_runner"].run(queue, served, error_handler.report, stop, schedules)
        log.info("worker.stopped", queue=queue.name)


@asynccontextmanager
async def _going_on(rounds: Rounds) -> AsyncIterator[None]:
    going = asyncio.create_task(rounds.run())
    try:
        yield
    finally:
        going.cancel()
        await asyncio.wait({going})


async def _give_up(opening: "asyncio.Task[Hub]") -> None:
    # More than once: a driver that is just connecting may take a cancellation for its own time limit.
    while not opening.done():
        opening.cancel()
        await asyncio.wait({opening}, timeout=GIVE_UP_INTERVAL_S)


async def _unhealthy(hub: Hub, queue: QueueLimits, rounds: Rounds | None) -> str:
    failing = [f"{health.name}: {health.error}" for health in await hub.health() if not health.healthy]
    if rounds is not None and (unready := rounds.unready()):
        failing.append(unready)
    if not failing:
        try:
            if not await hub["job_queue"].served(queue.name):
                failing.append("the queue is not served yet")
        except TickgateError as e:
            failing.append(f"queue: {e.public}")
    return "; ".join(failing)


def main() -> int:
    die_with_parent()
    return_large_buffers()
    try:
        settings = load_settings()
        configure_logging("worker", settings.log_level)
        metrics.watch_process()
        if len(sys.argv) != 2 or sys.argv[1] not in QUEUES:
            raise Misconfigured(f"usage: python -m workers {{{'|'.join(QUEUES)}}}", code="BAD_ARGUMENTS")
        uvloop.run(run(settings, QUEUES[sys.argv[1]]))
    except TickgateError as e:
        sys.stderr.write(f"error: {e}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
