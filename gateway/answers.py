"""What answers look like, for the OpenAPI document. Market bodies are written by the store and never pass through these
types; a test holds every real answer against them.
"""

from typing import Annotated, Any, Literal

import msgspec

from core.messages.certificates import Certificate
from core.messages.jobs import ErrorReport, JobStatus

EpochMs = Annotated[int, msgspec.Meta(description="UTC epoch milliseconds.", examples=[1_728_000_000_000])]
ServerMs = Annotated[
    int,
    msgspec.Meta(description="Epoch milliseconds on the trade server's clock.", examples=[1_728_007_200_000]),
]
UtcMs = Annotated[
    int | None, msgspec.Meta(description="UTC epoch milliseconds, null where the offset is not known.")
]
NextCursor = Annotated[
    str | None, msgspec.Meta(description="What to pass as `cursor` for the next page; null on the last.")
]
Price = Annotated[
    float, msgspec.Meta(description="Quote currency per unit, the exact double.", examples=[1.10345])
]
SymbolText = Annotated[str, msgspec.Meta(examples=["EURUSD"])]
SourceText = Annotated[str, msgspec.Meta(examples=["demo"])]
FilterText = Annotated[str, msgspec.Meta(min_length=1, max_length=120, pattern=r"^[^\x00]*$")]
Uint = Annotated[int, msgspec.Meta(ge=0)]


class ParameterProblem(msgspec.Struct, kw_only=True):
    """One parameter that does not fit."""

    parameter: str
    problem: str


class Problem(msgspec.Struct, kw_only=True):
    """Problem details, RFC 9457. code is stable; fingerprint comes with defects of ours."""

    type: Annotated[str, msgspec.Meta(pattern="^urn:tickgate:problem:[A-Z0-9_]+$")]
    title: str
    status: Annotated[int, msgspec.Meta(ge=400, le=599)]
    code: Annotated[str, msgspec.Meta(pattern="^[A-Z0-9_]+$")]
    detail: str
    trace_id: str | None
    fingerprint: str | msgspec.UnsetType = msgspec.UNSET
    errors: list[ParameterProblem] | msgspec.UnsetType = msgspec.UNSET


class HealthCheck(msgspec.Struct, kw_only=True):
    """How one component stands, as one process sees it."""

    componentId: Annotated[str, msgspec.Meta(description="Who has looked.")]  # noqa: N815 - the draft's names
    componentType: str  # noqa: N815
    status: Literal["pass", "warn", "fail"]
    time: str | msgspec.UnsetType = msgspec.UNSET
    observedValue: float | msgspec.UnsetType = msgspec.UNSET  # noqa: N815
    observedUnit: str | msgspec.UnsetType = msgspec.UNSET  # noqa: N815
    output: str | msgspec.UnsetType = msgspec.UNSET
    version: str | msgspec.UnsetType = msgspec.UNSET
    standIn: Annotated[  # noqa: N815
        str | msgspec.UnsetType, msgspec.Meta(description="What keeps its tables instead.")
    ] = msgspec.UNSET
    lastError: str | msgspec.UnsetType = msgspec.UNSET  # noqa: N815
    lastErrorTime: str | msgspec.UnsetType = msgspec.UNSET  # noqa: N815
    waiting: int | msgspec.UnsetType = msgspec.UNSET
    size: int | msgspec.UnsetType = msgspec.UNSET


class Health(msgspec.Struct, kw_only=True):
    """draft-inadarei-api-health-check. Only `status` for who may not read the rest."""

    status: Literal["pass", "warn", "fail"]
    version: str | msgspec.UnsetType = msgspec.UNSET
    releaseId: str | msgspec.UnsetType = msgspec.UNSET  # noqa: N815
    checks: dict[str, list[HealthCheck]] | msgspec.UnsetType = msgspec.UNSET


class Tick(msgspec.Struct, kw_only=True):
    """One tick as it was stored. (time_msc, source, epoch, seq) is its place in the order."""

    symbol: SymbolText
    source: SourceText
    time_msc: ServerMs
    utc_ms: UtcMs
    bid: Price
    ask: Price
    last: Price
    volume: Uint
    volume_real: float
    flags: Uint
    epoch: Uint
    seq: Uint
    backfill: bool


class TickPage(msgspec.Struct, kw_only=True):
    """A page of ticks."""

    items: list[Tick]
    next_cursor: NextCursor


class Bar(msgspec.Struct, kw_only=True):
    """One bar of one source. Spreads are null where no tick had both prices."""

    symbol: SymbolText
    source: SourceText
    time_ms: ServerMs
    open: Price
    high: Price
    low: Price
    close: Price
    tick_volume: Uint
    volume: float
    spread_min: float | None
    spread_avg: float | None


class BarPage(msgspec.Struct, kw_only=True):
    """A page of bars."""

    items: list[Bar]
    next_cursor: NextCursor


Denormal = Literal["nan", "-nan", "inf", "-inf"]


class QuarantinedRow(msgspec.Struct, kw_only=True):
    """A row that was stored apart. What JSON has no number for is a text."""

    symbol: SymbolText
    source: SourceText
    reason: Literal["NOT_FINITE", "NEGATIVE", "CROSSED", "ABSURD_TIME", "TIME_MISMATCH", "NO_PRICE"]
    time: int
    time_msc: ServerMs
    utc_ms: UtcMs
    bid: float | Denormal
    ask: float | Denormal
    last: float | Denormal
    volume: Uint
    volume_real: float | Denormal
    flags: Uint
    epoch: Uint
    seq: Uint
    backfill: bool
    captured_at_ms: EpochMs


class QuarantinePage(msgspec.Struct, kw_only=True):
    """A page of quarantined rows."""

    items: list[QuarantinedRow]
    next_cursor: NextCursor


class Quote(msgspec.Struct, kw_only=True):
    """The newest quote of one symbol of one source."""

    symbol: SymbolText
    source: SourceText
    time_msc: ServerMs
    utc_ms: UtcMs
    bid: Price
    ask: Price
    last: Price
    volume: Uint
    flags: Uint
    epoch: Uint
    seq: Uint


class QuoteList(msgspec.Struct, kw_only=True):
    """The newest quotes."""

    items: list[Quote]
    next_cursor: NextCursor


class SymbolSpan(msgspec.Struct, kw_only=True):
    """A symbol of one source, its span and size."""

    symbol: SymbolText
    source: SourceText
    first_time_msc: ServerMs
    last_time_msc: ServerMs
    ticks: Uint


class SymbolList(msgspec.Struct, kw_only=True):
    """Every symbol there is."""

    items: list[SymbolSpan]
    next_cursor: NextCursor


class CertificateList(msgspec.Struct, kw_only=True):
    """Completeness certificates."""

    items: list[Certificate]
    next_cursor: NextCursor


class AcceptedJob(msgspec.Struct, kw_only=True):
    """The answer will be at the address in Location."""

    id: str
    status: JobStatus


class JobProgress(msgspec.Struct, kw_only=True):
    """How far a running job says it is. total: null while it does not know."""

    done: int
    total: int | None
    note: str
    at_ms: EpochMs


class Job(msgspec.Struct, kw_only=True):
    """Where a job stands. answer: a finished job's, where it is JSON; error: a failed or cancelled job's."""

    id: str
    function: str
    status: JobStatus
    attempts: Uint
    enqueued_at_ms: EpochMs
    started_at_ms: EpochMs | None
    finished_at_ms: EpochMs | None
    progress: JobProgress | None
    error: ErrorReport | None
    answer: Any
    answer_url: str | None


class TokenRequest(msgspec.Struct, kw_only=True):
    """RFC 6749 sections 4.4.2 and 6. scope: with offline_access for a refresh token; on refresh, fewer than before.

    client_id, client_secret: for clients that cannot use HTTP Basic.
    """

    grant_type: Literal["client_credentials", "refresh_token"]
    scope: str | msgspec.UnsetType = msgspec.UNSET
    refresh_token: str | msgspec.UnsetType = msgspec.UNSET
    client_id: str | msgspec.UnsetType = msgspec.UNSET
    client_secret: str | msgspec.UnsetType = msgspec.UNSET


class AccessToken(msgspec.Struct, kw_only=True):
    """RFC 6749 section 5.1."""

    access_token: str
    token_type: Literal["Bearer"]
    expires_in: Annotated[int, msgspec.Meta(description="Seconds.")]
    scope: str
    refresh_token: str | msgspec.UnsetType = msgspec.UNSET


class TokenQuestion(msgspec.Struct, kw_only=True):
    """RFC 7009 section 2.1, RFC 7662 section 2.1. token: an access or a refresh token; the hint is not needed."""

    token: Annotated[str, msgspec.Meta(min_length=1)]
    token_type_hint: str | msgspec.UnsetType = msgspec.UNSET
    client_id: str | msgspec.UnsetType = msgspec.UNSET
    client_secret: str | msgspec.UnsetType = msgspec.UNSET


class Nothing(msgspec.Struct, kw_only=True):
    """An empty object."""


class Introspection(msgspec.Struct, kw_only=True):
    """RFC 7662 section 2.2. Of a token that is not active nothing else is said."""

    active: bool
    client_id: str | msgspec.UnsetType = msgspec.UNSET
    sub: str | msgspec.UnsetType = msgspec.UNSET
    tenant: str | msgspec.UnsetType = msgspec.UNSET
    scope: str | msgspec.UnsetType = msgspec.UNSET
    token_type: Literal["Bearer"] | msgspec.UnsetType = msgspec.UNSET
    iat: int | msgspec.UnsetType = msgspec.UNSET
    exp: int | msgspec.UnsetType = msgspec.UNSET
    iss: str | msgspec.UnsetType = msgspec.UNSET
    aud: str | msgspec.UnsetType = msgspec.UNSET
    jti: str | msgspec.UnsetType = msgspec.UNSET


class PublicKey(msgspec.Struct, kw_only=True):
    """An Ed25519 public key, RFC 8037."""

    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    x: str
    kid: str
    use: Literal["sig"] = "sig"


class KeyDocument(msgspec.Struct, kw_only=True):
    """A JSON Web Key Set, RFC 7517."""

    keys: list[PublicKey]


class ServerMetadata(msgspec.Struct, kw_only=True):
    """RFC 8414 section 2."""

    issuer: str
    token_endpoint: str
    revocation_endpoint: str
    introspection_endpoint: str
    jwks_uri: str
    scopes_supported: list[str]
    response_types_supported: list[str]
    grant_types_supported: list[str]
    token_endpoint_auth_methods_supported: list[str]
    revocation_endpoint_auth_methods_supported: list[str]
    introspection_endpoint_auth_methods_supported: list[str]


class OAuthError(msgspec.Struct, kw_only=True):
    """RFC 6749 section 5.2."""

    error: str
    error_description: str | msgspec.UnsetType = msgspec.UNSET
    error_uri: str | msgspec.UnsetType = msgspec.UNSET


class Readiness(msgspec.Struct, kw_only=True):
    """problems: what is not there, by name."""

    ready: bool
    problems: dict[str, str]


class Index(msgspec.Struct, kw_only=True):
    """Where things are."""

    name: str
    version: str
    links: dict[str, str]
