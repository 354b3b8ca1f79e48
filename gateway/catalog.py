"""The route catalogue: every endpoint, who may use it, how large its body and how long its answer may be."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import msgspec
from starlette.routing import Route

from core.errors.exceptions import Defect
from core.messages.annotations import MarkQuery
from core.messages.jobs import (
    CONTENT_FORMATS,
    EXPORT_CONTENT_TYPES,
    BarExportQuery,
    BarQuery,
    CompletenessQuery,
    ExportQuery,
    QuarantineQuery,
    QuoteQuery,
    SymbolQuery,
    TickQuery,
)
from core.messages.message import Message
from core.model.principals import Scope
from gateway import (
    answers,
    approval_catalog,
    dead_letters,
    docs,
    exports,
    health,
    health_report,
    jobs,
    keys,
    market,
    oauth,
    oauth_metadata,
    order_catalog,
    queues,
    record_catalog,
    risk_catalog,
    source_catalog,
)
from gateway.contents import JOB_CANCELLED, JSON_TYPE, LATER, refused, shown
from gateway.door import Door, Doors
from gateway.oauth_requests import FORM_TYPE
from gateway.parameters import NoParameters
from gateway.record_shapes import MARK_PAGE
from gateway.routing import Access, Content, Endpoint, Handler, RateClass

TOKEN_BODY_BYTES_MAX: Final = 8 * 1024
KEY_BODY_BYTES_MAX: Final = 8 * 1024
MARKET_DEADLINE_S: Final = market.WAIT_S_MAX + 5.0
EXPORT_DEADLINE_S: Final = 30.0
"""Until its first byte."""
TEXT: Final = "text/plain"
FILES: Final = tuple(CONTENT_FORMATS)
"""The media types of a market answer, JSON first."""
EXPORTED: Final = tuple(kind.partition(";")[0] for kind in EXPORT_CONTENT_TYPES.values())


def _market(name: str, handler: Handler, query: type[Message], page: Content) -> Endpoint:
    return Endpoint(
        method="GET",
        path=f"/v1/{name}",
        handler=handler,
        access=Scope.MARKET_READ,
        rate=RateClass.READ,
        query=query,
        deadline_s=MARKET_DEADLINE_S,
        headers=("Prefer",),
        answers={
            200: page,
            202: replace(LATER, headers=(*LATER.headers, "Preference-Applied")),
            404: refused("The tenant has no such source."),
            409: JOB_CANCELLED,
        },
    )


def _page(schema: type[msgspec.Struct], types: tuple[str, ...] = (JSON_TYPE,)) -> Content:
    return shown(schema, "Link", "X-Next-Cursor", "Preference-Applied", types=types)


def _export(name: str, handler: Handler, query: type[Message]) -> Endpoint:
    return Endpoint(
        method="GET",
        path=f"/v1/{name}s/export",
        handler=handler,
        access=Scope.MARKET_READ,
        rate=RateClass.EXPORT,
        query=query,
        deadline_s=EXPORT_DEADLINE_S,
        answers={
            200: Content(
                description=f"Every {name}; an answer that breaks off is not whole.",
                types=EXPORTED,
                headers=("Content-Disposition",),
            ),
            404: refused("The tenant has no such source."),
        },
    )


def _oauth(name: str, handler: Handler, form: type[msgspec.Struct], answer: type[msgspec.Struct]) -> Endpoint:
    return Endpoint(
        method="POST",
        path=f"/oauth/{name}",
        handler=handler,
        access=Access.PUBLIC,
        rate=RateClass.TOKEN,
        body=shown(form, types=(FORM_TYPE,)),
        body_bytes_max=TOKEN_BODY_BYTES_MAX,
        answers={
            200: shown(answer),
            400: Content(description="Refused, and why.", schema=answers.OAuthError),
            401: Content(
                description="The client is not known, or its secret is another.",
                schema=answers.OAuthError,
                headers=("WWW-Authenticate",),
            ),
        },
    )


ENDPOINTS: Final = (
    Endpoint(
        method="GET",
        path="/",
        handler=health.index,
        access=Access.PUBLIC,
        rate=RateClass.PUBLIC,
        answers={200: Content(description="Links.", schema=answers.Index)},
    ),
    Endpoint(
        method="GET",
        path="/livez",
        handler=health.livez,
        access=Access.PUBLIC,
        rate=RateClass.UNLIMITED,
        answers={200: Content(description="Alive.", types=(TEXT,))},
    ),
    Endpoint(
        method="GET",
        path="/readyz",
        handler=health.readyz,
        access=Access.PUBLIC,
        rate=RateClass.PUBLIC,
        answers={
            200: Content(description="Ready.", schema=answers.Readiness),
            503: Content(description="Not ready.", schema=answers.Readiness),
        },
    ),
    Endpoint(
        method="GET",
        path="/health",
        handler=health_report.health,
        access=Access.PUBLIC,
        rate=RateClass.PUBLIC,
        answers={
            200: Content(description="It works.", schema=answers.Health, types=(health_report.CONTENT_TYPE,)),
            503: Content(
                description="It cannot work.", schema=answers.Health, types=(health_report.CONTENT_TYPE,)
            ),
        },
    ),
    Endpoint(
        method="GET",
        path="/metrics",
        handler=health.measured,
        access=Access.OPERATOR,
        rate=RateClass.UNLIMITED,
        answers={200: Content(description="Metrics.", types=(TEXT,))},
    ),
    Endpoint(
        method="GET",
        path="/openapi.json",
        handler=docs.openapi,
        access=Access.DOCUMENTED,
        rate=RateClass.PUBLIC,
        answers={200: Content(description="OpenAPI 3.1.")},
    ),
    Endpoint(
        method="GET",
        path="/docs",
        handler=docs.page,
        access=Access.PUBLIC,
        rate=RateClass.PUBLIC,
        answers={
            200: Content(description="A page.", types=("text/html",)),
            404: refused("The documentation is turned off."),
        },
    ),
    Endpoint(
        method="GET",
        path="/docs/{name}",
        handler=docs.asset,
        access=Access.PUBLIC,
        rate=RateClass.PUBLIC,
        answers={
            200: Content(
                description="A file.",
                types=("text/css", "text/javascript", "image/png", "application/json"),
            )
        },
    ),
    Endpoint(
        method="GET",
        path="/.well-known/jwks.json",
        handler=oauth_metadata.jwks,
        access=Access.PUBLIC,
        rate=RateClass.PUBLIC,
        answers={200: Content(description="The keys.", schema=answers.KeyDocument)},
    ),
    Endpoint(
        method="GET",
        path="/.well-known/oauth-authorization-server",
        handler=oauth_metadata.metadata,
        access=Access.PUBLIC,
        rate=RateClass.PUBLIC,
        answers={200: Content(description="RFC 8414.", schema=answers.ServerMetadata)},
    ),
    _oauth("token", oauth.token, answers.TokenRequest, answers.AccessToken),
    _oauth("revoke", oauth.revoke, answers.TokenQuestion, answers.Nothing),
    _oauth("introspect", oauth.introspect, answers.TokenQuestion, answers.Introspection),
    _market("symbols", market.symbols, SymbolQuery, _page(answers.SymbolList)),
    _market("quotes", market.quotes, QuoteQuery, _page(answers.QuoteList)),
    _market("ticks", market.ticks, TickQuery, _page(answers.TickPage, FILES)),
    _export("tick", exports.ticks, ExportQuery),
    _market("bars", market.bars, BarQuery, _page(answers.BarPage, FILES)),
    _export("bar", exports.bars, BarExportQuery),
    _market("quarantine", market.quarantine, QuarantineQuery, _page(answers.QuarantinePage, FILES)),
    _market("marks", market.marks, MarkQuery, _page(MARK_PAGE)),
    _market("completeness", market.completeness, CompletenessQuery, _page(answers.CertificateList)),
    Endpoint(
        method="GET",
        path="/v1/jobs/{id}",
        handler=jobs.state,
        access=Scope.JOBS_READ,
        rate=RateClass.READ,
        query=NoParameters,
        answers={200: Content(description="The job.", schema=answers.Job, headers=("Retry-After",))},
    ),
    Endpoint(
        method="GET",
        path="/v1/jobs/{id}/answer",
        handler=jobs.answer,
        access=Scope.JOBS_READ,
        rate=RateClass.READ,
        query=NoParameters,
        answers={
            200: Content(
                description="What the job answered; its shape is that of the route that asked.",
                types=FILES,
                headers=("Link", "X-Next-Cursor"),
            ),
            409: refused("The job has not finished yet."),
        },
    ),
    Endpoint(
        method="DELETE",
        path="/v1/jobs/{id}",
        handler=jobs.cancel,
        access=Scope.JOBS_WRITE,
        rate=RateClass.WRITE,
        query=NoParameters,
        answers={
            200: Content(description="The job waited, and is cancelled.", schema=answers.Job),
            202: Content(
                description="The job runs; its worker has been told.",
                schema=answers.Job,
                headers=("Retry-After",),
            ),
            409: refused("The job has ended already."),
        },
    ),
    Endpoint(
        method="GET",
        path="/v1/queues",
        handler=queues.standings,
        access=Scope.QUEUES_READ,
        rate=RateClass.READ,
        query=NoParameters,
        answers={200: Content(description="How every queue stands.", schema=queues.QueueList)},
    ),
    Endpoint(
        method="GET",
        path="/v1/dead-letters",
        handler=dead_letters.listed,
        access=Scope.DEAD_LETTERS_READ,
        rate=RateClass.READ,
        query=dead_letters.DeadLetterQuery,
        answers={200: Content(description="A page of dead letters.", schema=dead_letters.DeadLetterPage)},
    ),
    Endpoint(
        method="GET",
        path="/v1/dead-letters/{id}",
        handler=dead_letters.one,
        access=Scope.DEAD_LETTERS_READ,
        rate=RateClass.READ,
        query=NoParameters,
        answers={200: Content(description="The dead letter.", schema=dead_letters.BuriedJob)},
    ),
    Endpoint(
        method="POST",
        path="/v1/dead-letters/{id}/replay",
        handler=dead_letters.replay,
        access=Scope.DEAD_LETTERS_WRITE,
        rate=RateClass.WRITE,
        query=NoParameters,
        idempotent=True,
        answers={
            202: Content(
                description="It is a job again; where it stands is at Location.",
                schema=answers.AcceptedJob,
                headers=("Location", "Retry-After"),
            ),
            409: refused("A request with this Idempotency-Key is running, or it was replayed before."),
        },
    ),
    Endpoint(
        method="GET",
        path="/v1/keys",
        handler=keys.listed,
        access=Scope.KEYS_READ,
        rate=RateClass.READ,
        query=keys.KeyQuery,
        answers={200: Content(description="A page of keys.", schema=keys.KeyPage)},
    ),
    Endpoint(
        method="POST",
        path="/v1/keys",
        handler=keys.create,
        access=Scope.KEYS_WRITE,
        rate=RateClass.WRITE,
        body=Content(description="What the key is for and may do.", schema=keys.KeyWish),
        body_bytes_max=KEY_BODY_BYTES_MAX,
        idempotent=True,
        atomic=True,
        answers={
            201: Content(description="The key, with its secret.", schema=keys.KeyWithSecret),
            409: refused("A request with this Idempotency-Key is running, or the tenant has too many keys."),
        },
    ),
    Endpoint(
        method="POST",
        path="/v1/keys/{id}/rotate",
        handler=keys.rotate,
        access=Scope.KEYS_WRITE,
        rate=RateClass.WRITE,
        body=Content(description="How long the old secret stays good.", schema=keys.RotationWish),
        body_bytes_max=KEY_BODY_BYTES_MAX,
        idempotent=True,
        atomic=True,
        answers={
            200: Content(description="The key, with its new secret.", schema=keys.KeyWithSecret),
            404: refused("There is no such key."),
            409: refused("A request with this Idempotency-Key is running, or the key has ended."),
        },
    ),
    Endpoint(
        method="DELETE",
        path="/v1/keys/{id}",
        handler=keys.revoke,
        access=Scope.KEYS_WRITE,
        rate=RateClass.WRITE,
        query=NoParameters,
        answers={
            204: Content(description="The key is good no more.", types=()),
            404: refused("There is no such key."),
        },
    ),
    *source_catalog.ENDPOINTS,
    *order_catalog.ENDPOINTS,
    *risk_catalog.ENDPOINTS,
    *approval_catalog.ENDPOINTS,
    *record_catalog.ENDPOINTS,
)


def routes(endpoints: Sequence[Endpoint] = ENDPOINTS) -> list[Route]:
    """Return the router's table.

    Raises:
        Defect: an endpoint has no access decision, or two share a method and path.
    """
    doors: dict[str, dict[str, Door]] = {}
    for endpoint in endpoints:
        if not isinstance(endpoint.access, Access | Scope):
            raise Defect(
                f"{endpoint.method} {endpoint.path} has no access decision", code="ROUTE_WITHOUT_SCOPE"
            )
        of_path = doors.setdefault(endpoint.path, {})
        if endpoint.method in of_path:
            raise Defect(f"{endpoint.method} {endpoint.path} is there twice", code="ROUTE_TWICE")
        of_path[endpoint.method] = Door(endpoint)
    return [Route(path, Doors(of_path), methods=list(of_path)) for path, of_path in doors.items()]
