"""ClickHouse's HTTP interface over the embedded engine: `serve` is the process that owns the data."""

import asyncio
import importlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvloop
from aiohttp import web

from core.adapters.embedded.replacement import die_with_parent
from core.errors.exceptions import Unavailable

if TYPE_CHECKING:
    from core.adapters.embedded.clickhouse_service import Service

# How long running queries may take to end by themselves, and then to end when told to.
DRAIN_SECONDS_MAX: Final = 5.0
# Longer than any client keeps an idle connection, so that none is closed under a client about to use it.
KEEPALIVE_SECONDS: Final = 3_600.0
_READ_BUFFER_BYTES: Final = 256 * 1024
# Statements may come in the URL.
_URL_BYTES_MAX: Final = 1024 * 1024


def serve(*, directory: Path, host: str, port: int, user: str, password: str, memory_bytes_max: int) -> None:
    """Own `directory` and answer until SIGTERM or SIGINT; then end what runs and close the data in order.

    Raises:
        Conflict: another process owns the directory. Unavailable: the port is taken.
    """
    die_with_parent(signal.SIGTERM)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The engine takes its time zone from the environment when it is imported, and cuts months by it.
    os.environ["TZ"] = "UTC"
    service = importlib.import_module("core.adapters.embedded.clickhouse_service")
    engine = service.Engine(directory, memory_bytes_max)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(service.Service(engine, user, password), host, port))
    finally:
        engine.close()


async def _serve(service: "Service", host: str, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    application = web.Application()
    application.router.add_get("/ping", _ping)
    application.router.add_route("*", "/{path:.*}", service.handle)
    runner = web.AppRunner(
        application,
        access_log=None,
        handler_cancellation=True,
        auto_decompress=False,
        keepalive_timeout=KEEPALIVE_SECONDS,
        read_bufsize=_READ_BUFFER_BYTES,
        max_line_size=_URL_BYTES_MAX,
        max_field_size=_URL_BYTES_MAX,
        shutdown_timeout=DRAIN_SECONDS_MAX,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, reuse_address=True)
        try:
            await site.start()
        except OSError as error:
            raise Unavailable(f"ClickHouse cannot listen on {host}:{port}", detail=str(error)) from error
        await stop.wait()
        await site.stop()
        await service.drain(DRAIN_SECONDS_MAX)
    finally:
        await runner.cleanup()
        service.close()


async def _ping(_request: web.Request) -> web.Response:
    return web.Response(text="Ok.\n")
