"""/health: how everything stands. Source: draft-inadarei-api-health-check.

It fails where the gateway's own stores do not answer, for then nobody is served. What only workers use makes it warn:
the rest still works. Who may not read it is told the status alone.
"""

import asyncio
import time
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from starlette.responses import Response

from core.errors.exceptions import TickgateError
from core.messages.health import HealthReport, StoreReport
from core.messages.jobs import Probe
from core.model.principals import Scope
from core.ports.jobs import JobQueue
from gateway.authentication import authenticate, is_operator
from gateway.health import VERSION
from gateway.problems import Challenged
from gateway.routing import Access, Call

CONTENT_TYPE: Final = "application/health+json"
ASK_TIMEOUT_MS: Final = 1_500
KEPT_S: Final = 1.0
WORKER: Final = "worker-database"


class Watched:
    """What the database worker says, asked for at most once a second; who comes meanwhile waits for that answer."""

    def __init__(self) -> None:
        self.at_s = -KEPT_S
        self.asking: asyncio.Task[tuple[HealthReport | None, str]] | None = None


_worker = Watched()


async def health(call: Call) -> Response:
    """Tell how every store and the workers stand.

    Everybody is told `status`. The checks are for operators and for credentials with the scope health:read. 503 where
    the gateway itself cannot work, else 200.
    """
    own = await call.services.health()
    theirs, problem = await _of_the_worker(call)
    failing = bool(own.failing)
    warning = problem or bool(theirs and theirs.failing)
    status = "fail" if failing else "warn" if warning else "pass"
    body: dict[str, Any] = {"status": status}
    if await _may_read(call):
        reports = [own, *([theirs] if theirs else [])]
        body |= {
            "version": VERSION.partition(".")[0],
            "releaseId": VERSION,
            "checks": _checks(reports, problem),
        }
    return Response(msgspec.json.encode(body), 503 if failing else 200, media_type=CONTENT_TYPE)


async def _of_the_worker(call: Call) -> tuple[HealthReport | None, str]:
    if _worker.asking is None or (_worker.asking.done() and time.monotonic() - _worker.at_s >= KEPT_S):
        _worker.at_s = time.monotonic()
        _worker.asking = asyncio.create_task(_ask_the_worker(call.services.queue))
    # Whoever gives up must not take the answer away from the others.
    return await asyncio.shield(_worker.asking)


async def _ask_the_worker(queue: JobQueue) -> tuple[HealthReport | None, str]:
    try:
        answer = await queue.ask("database.health", Probe(), tenant="", timeout_ms=ASK_TIMEOUT_MS)
    except TickgateError as e:
        return None, e.public
    if isinstance(answer, str):
        return None, "no database worker answers"
    return msgspec.json.decode(answer.body, type=HealthReport), ""


async def _may_read(call: Call) -> bool:
    services = call.services
    if is_operator(call.request, services.settings.gateway.metrics_token.reveal()):
        return True
    try:
        principal = await authenticate(Access.AUTHENTICATED, call.request, services)
    except Challenged:
        if "authorization" in call.request.headers or "x-api-key" in call.request.headers:
            await services.limits.admit_failure(call.request)
        return False
    except TickgateError:
        # Who it is cannot be known now; that is told, too.
        return False
    return principal is not None and Scope.HEALTH_READ in principal.scopes


def _checks(reports: list[HealthReport], problem: str) -> dict[str, list[dict[str, Any]]]:
    checks: dict[str, list[dict[str, Any]]] = {}
    for report in reports:
        for store in report.stores:
            checks.setdefault(f"{store.store}:responseTime", []).append(
                _response_time(report.observer, store)
            )
            if store.size is not None:
                checks.setdefault(f"{store.store}:connections", []).append(
                    _connections(report.observer, store)
                )
    worker = {"componentId": WORKER, "componentType": "component", "status": "warn" if problem else "pass"}
    checks["workers:database"] = [{**worker, **({"output": problem} if problem else {})}]
    return checks


def _response_time(observer: str, store: StoreReport) -> dict[str, Any]:
    check = {
        "componentId": observer,
        "componentType": "datastore",
        "status": store.state,
        "observedValue": store.latency_ms,
        "observedUnit": "ms",
        "time": _time(store.at_ms),
    }
    told = {"version": store.version, "standIn": store.stand_in, "output": store.error}
    check |= {name: value for name, value in told.items() if value}
    if store.failed_at_ms is not None:
        check |= {"lastError": store.last_error, "lastErrorTime": _time(store.failed_at_ms)}
    return check


def _connections(observer: str, store: StoreReport) -> dict[str, Any]:
    return {
        "componentId": observer,
        "componentType": "datastore",
        "status": "warn" if store.waiting else "pass",
        "observedValue": store.in_use,
        "observedUnit": "connections",
        "waiting": store.waiting,
        "size": store.size,
        "time": _time(store.at_ms),
    }


def _time(epoch_ms: int) -> str:
    return (
        datetime.fromtimestamp(epoch_ms / 1_000, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )
