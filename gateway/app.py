"""The gateway's ASGI application: routes of the catalogue behind one envelope, services of one hub."""

import functools
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import StatelessLifespan

from core.errors.exceptions import TickgateError
from core.infrastructure.central_hub import Hub, open_hub
from core.infrastructure.config_manager import load_settings
from core.infrastructure.health_watch import HealthWatch
from core.infrastructure.process import die_with_parent, return_large_buffers
from core.settings import Settings
from core.telemetry import metrics
from core.telemetry.logs import configure_logging
from core.trading.changes import OrderChanges
from core.trading.settling import Settlement
from core.trading.submission import OrderEntrance
from gateway import openapi
from gateway.catalog import ENDPOINTS, routes
from gateway.limits import Limits, TenantQueue
from gateway.perimeter import perimeter
from gateway.places import Places
from gateway.problems import http_problem
from gateway.routing import Endpoint, Services
from gateway.shortcuts import Shortcuts
from gateway.signing import load_signer
from gateway.trail_feed import TrailFeed

log = structlog.get_logger(__name__)

NEEDS: Final = frozenset(
    {
        "job_queue",
        "queue_control",
        "dead_letters",
        "answer_streams",
        "identity",
        "access_tokens",
        "grants",
        "api_keys",
        "idempotency",
        "revocations",
        "tenant_sources",
        "redis",
        "postgres",
        "rate_limiter",
        "order_ledger",
        "risk_book",
        "approvals",
        "audit",
        "trail_news",
        "trail_ears",
        "latest_quotes",
    }
)
START_PATIENCE_S: Final = 60.0
QUEUE_OF_READS: Final = "database"


def create_app() -> Starlette:
    """Build the application inside a server process."""
    # The server's main process may be killed outright; its workers must not go on without it.
    die_with_parent()
    return_large_buffers()
    settings = load_settings()
    configure_logging("gateway", settings.log_level)
    metrics.watch_process()
    app = build_app(settings)
    app.router.lifespan_context = _ending_plainly(app.router.lifespan_context)
    return app


def _ending_plainly(lifespan: Any) -> StatelessLifespan[Starlette]:
    """Let a start that fails say why in a sentence; the server would log a traceback. What it had opened is closed."""

    @asynccontextmanager
    async def plain(app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(lifespan(app))
            except TickgateError as e:
                sys.stderr.write(f"error: {e}\n")
                sys.stderr.flush()
                os._exit(1)
            yield

    return plain


def build_app(settings: Settings, endpoints: Sequence[Endpoint] = ENDPOINTS) -> Starlette:
    """Build the application; its services open when it starts.

    Raises:
        Misconfigured: no signing key, or a setting of the perimeter is none. Defect: a route has no access decision.
    """
    signer = load_signer(settings.auth)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with open_hub(settings, NEEDS, patience_s=START_PATIENCE_S) as hub:
            entrance = OrderEntrance(
                desk=hub["order_ledger"],
                risk=hub["risk_book"],
                audit=hub["audit"],
                quotes=hub["latest_quotes"],
                approvals=hub["approvals"],
            )
            hub["audit"].tells(hub["trail_news"].moved)
            settlement = Settlement(ledger=hub["order_ledger"], audit=hub["audit"])
            app.state.services = Services(
                settings=settings,
                queue=TenantQueue(hub["job_queue"], settings.limits.waiting_by_tenant_max),
                queue_control=hub["queue_control"],
                dead_letters=hub["dead_letters"],
                identity=hub["identity"],
                verifier=hub["access_tokens"],
                api_keys=hub["api_keys"],
                idempotency=hub["idempotency"],
                grants=hub["grants"],
                revocations=hub["revocations"],
                sources=hub["tenant_sources"],
                signer=signer,
                unhealthy=lambda: _unhealthy(hub),
                health=HealthWatch(hub, "gateway").report,
                answer_streams=hub["answer_streams"],
                exports=Places(settings.gateway.exports_max),
                streams=Places(settings.gateway.streams_max, "streams", metrics.STREAMS_RUNNING),
                limits=Limits(settings.limits, hub["rate_limiter"]),
                ledger=hub["order_ledger"],
                risk=hub["risk_book"],
                audit=hub["audit"],
                trail=TrailFeed(hub["audit"], hub["trail_ears"]),
                approvals=hub["approvals"],
                entrance=entrance,
                changes=OrderChanges(ledger=hub["order_ledger"], settlement=settlement, entrance=entrance),
            )
            log.info("gateway.serving")
            yield

    table = routes(endpoints)
    app = Starlette(
        routes=table,
        middleware=[*perimeter(settings.gateway), Middleware(Shortcuts, routes=table)],
        exception_handlers={HTTPException: _refused},
        lifespan=lifespan,
    )
    app.state.endpoints = endpoints
    # Made when it is first asked for: most processes never are.
    app.state.document = functools.cache(openapi.written)
    # It would send callers to whatever their Host header names.
    app.router.redirect_slashes = False
    return app


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return http_problem(error)


async def _unhealthy(hub: Hub) -> Mapping[str, str]:
    problems = {health.name: health.error for health in await hub.health() if not health.healthy}
    try:
        if not await hub["job_queue"].served(QUEUE_OF_READS):
            problems["worker"] = "no database worker is alive"
    except TickgateError as e:
        problems["queue"] = e.public
    return problems
