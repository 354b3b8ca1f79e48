"""The route catalogue: every endpoint, who may use it, how large its body and how long its answer may be."""

from collections.abc import Sequence
from typing import Final

from starlette.routing import Route

from core.errors.exceptions import Defect
from core.messages.jobs import (
    BarQuery,
    CompletenessQuery,
    QuarantineQuery,
    QuoteQuery,
    SymbolQuery,
    TickQuery,
)
from core.model.principals import Scope
from gateway import health, jobs, market, oauth
from gateway.door import Door
from gateway.routing import Access, Endpoint, RateClass

TOKEN_BODY_BYTES_MAX: Final = 8 * 1024
MARKET_DEADLINE_S: Final = market.WAIT_S_MAX + 5.0

ENDPOINTS: Final = (
    Endpoint(method="GET", path="/", handler=health.index, access=Access.PUBLIC, rate=RateClass.PUBLIC),
    Endpoint(
        method="GET", path="/livez", handler=health.livez, access=Access.PUBLIC, rate=RateClass.UNLIMITED
    ),
    Endpoint(
        method="GET", path="/readyz", handler=health.readyz, access=Access.PUBLIC, rate=RateClass.PUBLIC
    ),
    Endpoint(
        method="GET",
        path="/metrics",
        handler=health.measured,
        access=Access.OPERATOR,
        rate=RateClass.UNLIMITED,
    ),
    Endpoint(
        method="POST",
        path="/oauth/token",
        handler=oauth.token,
        access=Access.PUBLIC,
        rate=RateClass.TOKEN,
        body_bytes_max=TOKEN_BODY_BYTES_MAX,
    ),
    *(
        Endpoint(
            method="GET",
            path=f"/v1/{name}",
            handler=handler,
            access=Scope.MARKET_READ,
            rate=RateClass.READ,
            query=query,
            deadline_s=MARKET_DEADLINE_S,
        )
        for name, handler, query in (
            ("symbols", market.symbols, SymbolQuery),
            ("quotes", market.quotes, QuoteQuery),
            ("ticks", market.ticks, TickQuery),
            ("bars", market.bars, BarQuery),
            ("quarantine", market.quarantine, QuarantineQuery),
            ("completeness", market.completeness, CompletenessQuery),
        )
    ),
    Endpoint(
        method="GET", path="/v1/jobs/{id}", handler=jobs.state, access=Scope.JOBS_READ, rate=RateClass.READ
    ),
    Endpoint(
        method="GET",
        path="/v1/jobs/{id}/answer",
        handler=jobs.answer,
        access=Scope.JOBS_READ,
        rate=RateClass.READ,
    ),
)


def routes(endpoints: Sequence[Endpoint] = ENDPOINTS) -> list[Route]:
    """Return the router's table.

    Raises:
        Defect: an endpoint has no access decision, or two share a method and path.
    """
    seen: set[tuple[str, str]] = set()
    for endpoint in endpoints:
        if not isinstance(endpoint.access, Access | Scope):
            raise Defect(
                f"{endpoint.method} {endpoint.path} has no access decision", code="ROUTE_WITHOUT_SCOPE"
            )
        if (endpoint.method, endpoint.path) in seen:
            raise Defect(f"{endpoint.method} {endpoint.path} is there twice", code="ROUTE_TWICE")
        seen.add((endpoint.method, endpoint.path))
    return [Route(endpoint.path, Door(endpoint), methods=[endpoint.method]) for endpoint in endpoints]
