"""A database worker with functions for tests, in this process or, as `python -m tests.queue_workers`, in its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from core.adapters.redis.job_queue_worker import RedisJobRunner
from core.errors.exceptions import Invalid
from core.infrastructure.config_manager import load_settings
from core.infrastructure.error_handler import report
from core.messages.jobs import Answer
from core.ports import JobFunction
from core.settings import Settings
from workers.queues import QUEUES

LEASE_S = 1.5
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


FUNCTIONS = [
    JobFunction(name="market.ticks", run=echo),
    JobFunction(name="market.bars", run=hang_once),
    JobFunction(name="market.quotes", run=large),
    JobFunction(name="market.quarantine", run=refuse),
    JobFunction(name="market.symbols", run=break_down),
]


async def work(settings: Settings, stop: asyncio.Event, functions: list[JobFunction] | None = None) -> None:
    runner = RedisJobRunner(settings.redis, lease_s=LEASE_S)
    await runner.run(QUEUES["database"], functions or FUNCTIONS, report, stop)


@asynccontextmanager
async def working(
    settings: Settings, functions: list[JobFunction] | None = None
) -> AsyncIterator[asyncio.Event]:
    """Work the database queue off in this process; leaving drains it."""
    stop = asyncio.Event()
    task = asyncio.create_task(work(settings, stop, functions))
    try:
        yield stop
    finally:
        stop.set()
        async with asyncio.timeout(15):
            await task


if __name__ == "__main__":
    asyncio.run(work(load_settings(), asyncio.Event()))
