"""A worker's own HTTP: is it alive, is it ready, what does it measure. Loopback by default.

Beyond this machine anybody may ask whether it is alive and ready; why not, and what it measures, takes the token.
"""

import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiohttp import web

from core.errors.exceptions import Unavailable
from core.infrastructure.exposure import is_local_caller
from core.messages.health import HealthReport
from core.settings import Secret, WorkerSettings
from core.telemetry import metrics

Unhealthy = Callable[[], Awaitable[str]]


def is_operator(request: web.Request, metrics_token: Secret) -> bool:
    """Whether the caller is on this machine, without a proxy between, or bears the token."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if metrics_token and scheme.lower() == "bearer":
        return hmac.compare_digest(token.strip().encode(), metrics_token.reveal().encode())
    return is_local_caller(request.remote or "", request.headers)


Standing = Callable[[], Awaitable[HealthReport]]


@asynccontextmanager
async def serve_health(
    worker: WorkerSettings, port: int, unhealthy: Unhealthy, standing: Standing
) -> AsyncIterator[None]:
    """Serve /livez, /readyz, /health and /metrics. unhealthy: says what is wrong, or nothing; standing: of the stores.

    Raises:
        Unavailable: the port is taken.
    """

    async def livez(_request: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def readyz(request: web.Request) -> web.Response:
        problem = await unhealthy()
        told = problem if is_operator(request, worker.metrics_token) else ""
        body = msgspec.json.encode({"ready": not problem, "problem": told})
        return web.Response(body=body, status=503 if problem else 200, content_type="application/json")

    async def health(request: web.Request) -> web.Response:
        report = await standing()
        told: dict[str, Any] = {"status": "fail" if report.failing else "pass"}
        if is_operator(request, worker.metrics_token):
            told |= {"observer": report.observer, "stores": report.stores}
        status = 503 if report.failing else 200
        return web.Response(
            body=msgspec.json.encode(told), status=status, content_type="application/health+json"
        )

    async def measured(request: web.Request) -> web.Response:
        if not is_operator(request, worker.metrics_token):
            return web.Response(status=403, text="only for operators\n")
        return web.Response(body=metrics.render(), headers={"Content-Type": metrics.CONTENT_TYPE})

    app = web.Application()
    app.add_routes(
        [
            web.get("/livez", livez),
            web.get("/readyz", readyz),
            web.get("/health", health),
            web.get("/metrics", measured),
        ]
    )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, worker.host, port).start()
    except OSError as e:
        raise Unavailable(f"port {port} cannot be opened: {e.strerror}", code="PORT_TAKEN") from e
    try:
        yield
    finally:
        await runner.cleanup()
