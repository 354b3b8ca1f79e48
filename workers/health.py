"""A worker's own HTTP: is it alive, is it ready, what does it measure. Loopback by default."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
from aiohttp import web

from core.errors.exceptions import Unavailable
from core.settings import WorkerSettings
from core.telemetry import metrics

Unhealthy = Callable[[], Awaitable[str]]


@asynccontextmanager
async def serve_health(worker: WorkerSettings, unhealthy: Unhealthy) -> AsyncIterator[None]:
    """Serve /livez, /readyz and /metrics. unhealthy: says what is wrong, or nothing.

    Raises:
        Unavailable: the port is taken.
    """

    async def livez(_request: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def readyz(_request: web.Request) -> web.Response:
        problem = await unhealthy()
        body = msgspec.json.encode({"ready": not problem, "problem": problem})
        return web.Response(body=body, status=503 if problem else 200, content_type="application/json")

    async def measured(_request: web.Request) -> web.Response:
        return web.Response(body=metrics.render(), headers={"Content-Type": metrics.CONTENT_TYPE})

    app = web.Application()
    app.add_routes([web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", measured)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, worker.host, worker.health_port).start()
    except OSError as e:
        raise Unavailable(
            f"port {worker.health_port} cannot be opened: {e.strerror}", code="PORT_TAKEN"
        ) from e
    try:
        yield
    finally:
        await runner.cleanup()
