"""What a route is: its row in the catalogue, what its handler is given, and the services behind it."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from core.messages.health import HealthReport
from core.messages.message import Message
from core.model.principals import Principal, Scope
from core.ports.access import ApiKeys, Grants, Identity, Revocations, TokenVerifier
from core.ports.answers import AnswerStreams
from core.ports.approvals import Approvals
from core.ports.audit import AuditTrail
from core.ports.idempotency import AnsweredWork, Idempotency, IdempotentRequest
from core.ports.jobs import DeadLetters, JobQueue, QueueControl
from core.ports.orders import OrderLedger
from core.ports.risk import RiskDesk
from core.ports.sources import TenantSources
from core.settings import Settings
from core.trading.changes import OrderChanges
from core.trading.submission import OrderEntrance
from gateway.limits import Limits
from gateway.places import Places
from gateway.signing import TokenSigner
from gateway.trail_feed import TrailFeed


class Access(StrEnum):
    """Who may come in without a scope. Everything else names the scope it needs."""

    PUBLIC = "anyone"
    AUTHENTICATED = "any valid token"
    OPERATOR = "this machine, or the metrics token"
    DOCUMENTED = "anyone while the documentation is on, else any valid token"


class RateClass(StrEnum):
    """Which limit a route shares. The figures are the limits module's."""

    UNLIMITED = "unlimited"
    PUBLIC = "public"
    TOKEN = "token"  # noqa: S105 - the class of /oauth/*
    READ = "read"
    WRITE = "write"
    EXPORT = "export"


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What handlers work with. unhealthy: names what is not there, or nothing; health: how the
    gateway's own stores stand; exports, streams: how many are being sent. entrance, changes: of orders."""

    settings: Settings
    queue: JobQueue
    queue_control: QueueControl
    dead_letters: DeadLetters
    identity: Identity
    verifier: TokenVerifier
    api_keys: ApiKeys
    idempotency: Idempotency
    grants: Grants
    revocations: Revocations
    sources: TenantSources
    signer: TokenSigner
    unhealthy: Callable[[], Awaitable[Mapping[str, str]]]
    health: Callable[[], Awaitable[HealthReport]]
    answer_streams: AnswerStreams
    exports: Places
    streams: Places
    limits: Limits
    ledger: OrderLedger
    risk: RiskDesk
    audit: AuditTrail
    trail: TrailFeed
    approvals: Approvals
    entrance: OrderEntrance
    changes: OrderChanges


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One request that was let in. principal: None on routes that need no token.

    asked: what it is known by, on routes that do all they do within `work`.
    """

    request: Request
    body: bytes
    principal: Principal | None
    services: Services
    asked: IdempotentRequest | None = None

    @property
    def caller(self) -> Principal:
        assert self.principal is not None, "only routes that demand a token ask for the caller"
        return self.principal

    def work(self) -> AbstractAsyncContextManager[AnsweredWork]:
        """Open the transaction in which the request is done and answered. Raises as `Idempotency.work` does."""
        assert self.asked is not None, "only routes that say so do all they do in one transaction"
        return self.services.idempotency.work(self.asked)


Handler = Callable[[Call], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What one status of an answer, or a request's body, looks like, for the OpenAPI document.

    schema: of its JSON or its form; None where it has neither. types: its media types, without parameters.
    headers: those it carries beyond the ones every answer has, rows of the OpenAPI module's table.
    """

    description: str
    schema: type[msgspec.Struct] | None = None
    types: tuple[str, ...] = ("application/json",)
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One row of the route catalogue. access: a scope, or why none is needed; there is no default on purpose.

    body_bytes_max: 0 refuses a body. deadline_s: the whole call's, until its answer begins. query: its parameters.
    idempotent: whether it demands an Idempotency-Key; atomic: and does all it does within `Call.work`. headers:
    request headers it heeds beyond those every route does.
    answers: its own statuses; the ones routes share are the OpenAPI module's. The first line of the handler's
    docstring is the route's summary, the rest its description.
    """

    method: str
    path: str
    handler: Handler
    access: Access | Scope
    rate: RateClass
    query: type[Message] | None = None
    body: Content | None = None
    body_bytes_max: int = 0
    deadline_s: float = 10.0
    idempotent: bool = False
    atomic: bool = False
    headers: tuple[str, ...] = ()
    answers: Mapping[int, Content] = field(default_factory=dict)
