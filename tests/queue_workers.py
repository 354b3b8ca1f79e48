"""A database worker with functions for tests, in this process or, as `python -m tests.queue_workers`, in its own."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from core.adapters.redis.job_queue_worker import RedisJobRunner
from core.errors.exceptions import Invalid
from core.infrastructure.config_manager import load_settings
from core.infrastructure.error_handler import report
from core.messages.jobs import Answer
from core.ports.jobs import JobFunction, Schedule
from core.settings import Settings
from tests.engines import House
from workers.queues import QUEUES

LEASE_S = 1.5
SCHEDULE_LOG = "QUEUE_TEST_SCHEDULE_LOG"
ALIVE = Answer(content_type="application/json", body=b"null")
PRIVATE = "the password is hunter2"


async def echo(ctx: dict[str, Any], request: Any, *, tenant: str, traceparent: str = "") -> Answer:
    body = msgspec.json.encode({"tenant": tenant, "request": request, "try": ctx["job_try"]})
    return Answer(content_type="application/json", body=body, rows=1)


async def large(ctx: dict[str, Any], request: Any, **_: Any) -> Answer:
    return Answer(content_type="application/octet-stream", body=b"x" * 2_000_000)


async def refuse(ctx: dict[str, Any], request: Any, **_: Any) -> Answer:
    raise Invalid("that makes no sense", code="NONSENSE")


async def break_down(ctx: dict[str, Any], request: Any, **_: Any) -> Answer:
    raise KeyError(PRIVATE)


async def hang_once(ctx: dict[str, Any], request: Any, **rest: Any) -> Answer:
    """Wait for ever at the first attempt."""
    if ctx["job_try"] == 1:
        await asyncio.Event().wait()
    return await echo(ctx, request, **rest)


async def die(ctx: dict[str, Any], request: Any, **_: Any) -> Answer:
    """End the whole process as a crash would, after the job was claimed. Only for a process of its own."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a killed process goes on")


async def note_slot(ctx: dict[str, Any], request: Any, **_: Any) -> Answer:
    """Append the slot to the log that several workers share."""
    with Path(os.environ[SCHEDULE_LOG]).open("a") as log:
        log.write(ctx["job_id"].rpartition(".")[2] + "\n")
    return ALIVE


FUNCTIONS = [
    JobFunction(name="market.ticks", run=echo),
    JobFunction(name="market.bars", run=hang_once),
    JobFunction(name="market.quotes", run=large),
    JobFunction(name="market.quarantine", run=refuse),
    JobFunction(name="market.symbols", run=break_down),
    JobFunction(name="market.completeness", run=die),
    JobFunction(name="test.slot", run=note_slot),
]


async def work(
    settings: Settings,
    stop: asyncio.Event,
    functions: list[JobFunction] | None = None,
    schedules: Sequence[Schedule] = (),
) -> None:
    runner = RedisJobRunner(settings.redis, lease_s=LEASE_S)
    await runner.run(QUEUES["database"], functions or FUNCTIONS, report, stop, schedules)


@asynccontextmanager
async def working(
    settings: Settings,
    functions: list[JobFunction] | None = None,
    schedules: Sequence[Schedule] = (),
) -> AsyncIterator[asyncio.Event]:
    """Work the database queue off in this process; leaving drains it."""
    stop = asyncio.Event()
    task = asyncio.create_task(work(settings, stop, functions, schedules))
    try:
        yield stop
    finally:
        stop.set()
        async with asyncio.timeout(15):
            await task


def worker_process(house: House, **environment: str) -> subprocess.Popen[bytes]:
    """Start this module on `house` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.queue_workers"],
        env={
            **os.environ,
            "TICKGATE_SETTINGS_FILE": str(house.root / "settings.json"),
            **environment,
        },
        cwd=Path(__file__).parents[1],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


if __name__ == "__main__":
    every_second = [Schedule(function="test.slot", queue="database", every_s=1)]
    asyncio.run(
        work(
            load_settings(),
            asyncio.Event(),
            schedules=every_second if SCHEDULE_LOG in os.environ else (),
        )
    )
