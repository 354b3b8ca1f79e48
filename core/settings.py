"""Every setting and its default. Read once by the Config Manager, validated, frozen.

A field `host` of section `postgres` is the environment variable TICKGATE_POSTGRES_HOST. Times end in their unit.
"""

from typing import Annotated, Literal

import msgspec

Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
PositiveFloat = Annotated[float, msgspec.Meta(gt=0)]


class Secret:
    """A value that never shows itself in logs, errors or representations."""

    __slots__ = ("_value",)

    def __init__(self, value: str = "") -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return "Secret(***)" if self._value else "Secret()"


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A group of settings that belong to one product or one process."""


class PostgresSettings(Section, frozen=True):
    host: str = "127.0.0.1"
    port: Port = 5432
    database: str = "tickgate"
    user: str = "tickgate"
    password: Secret = Secret()
    secure: bool = False
    connections_max: Positive = 8
    connect_timeout_s: PositiveFloat = 5.0
    acquire_timeout_s: PositiveFloat = 5.0
    command_timeout_s: PositiveFloat = 10.0


class ClickHouseSettings(Section, frozen=True):
    host: str = "127.0.0.1"
    port: Port = 8123
    database: str = "tickgate"
    user: str = "tickgate"
    password: Secret = Secret()
    secure: bool = False
    connections_max: Positive = 16
    connect_timeout_s: PositiveFloat = 5.0
    query_timeout_s: PositiveFloat = 30.0
    query_memory_bytes_max: Positive = 2 * 1024**3


class RedisSettings(Section, frozen=True):
    host: str = "127.0.0.1"
    port: Port = 6379
    database: Annotated[int, msgspec.Meta(ge=0)] = 0
    user: str = ""
    password: Secret = Secret()
    secure: bool = False
    connections_max: Positive = 32
    connect_timeout_s: PositiveFloat = 2.0
    command_timeout_s: PositiveFloat = 5.0


class WeaviateSettings(Section, frozen=True):
    """host: empty, and PostgreSQL with pgvector stands in."""

    host: str = ""
    port: Port = 8080
    grpc_port: Port = 50051
    api_key: Secret = Secret()
    secure: bool = False
    connections_max: Positive = 16
    connect_timeout_s: PositiveFloat = 5.0
    query_timeout_s: PositiveFloat = 10.0


class ArangoSettings(Section, frozen=True):
    """host: empty, and recursive queries of PostgreSQL stand in. connections_max: threads, too; the driver blocks."""

    host: str = ""
    port: Port = 8529
    database: str = "tickgate"
    user: str = "tickgate"
    password: Secret = Secret()
    secure: bool = False
    connections_max: Positive = 8
    connect_timeout_s: PositiveFloat = 5.0
    query_timeout_s: PositiveFloat = 10.0


class AuthSettings(Section, frozen=True):
    """Access tokens. key_file: private Ed25519 JWK set, only the gateway reads it; jwks_file: its public half.

    refresh_*: of refresh tokens, since the first of a family and since the last use. external_*: an OpenID provider
    whose access tokens are good here as well. external_token_types: what their `typ` may be; providers that write none
    of their own write JWT there, which their identity tokens do as well, so the audience must be this API's alone.
    """

    issuer: str = "tickgate"
    audience: str = "tickgate-api"
    key_file: str = ""
    jwks_file: str = ""
    token_ttl_s: Annotated[int, msgspec.Meta(ge=30, le=900)] = 900
    refresh_ttl_s: Annotated[int, msgspec.Meta(ge=60, le=366 * 86_400)] = 30 * 86_400
    refresh_idle_s: Annotated[int, msgspec.Meta(ge=60, le=366 * 86_400)] = 7 * 86_400
    external_issuer: str = ""
    external_jwks_url: str = ""
    external_audience: str = ""
    external_tenant_claim: str = "tenant"
    external_scope_claim: str = "scope"
    external_algorithms: list[str] = msgspec.field(
        default_factory=lambda: ["RS256", "PS256", "ES256", "EdDSA"]
    )
    external_token_types: list[str] = msgspec.field(default_factory=lambda: ["at+jwt"])
    external_token_ttl_s_max: Annotated[int, msgspec.Meta(ge=30, le=86_400)] = 3_600


class GatewaySettings(Section, frozen=True):
    """answer_timeout_ms: how long a read may keep its caller waiting before it becomes 202 and a job to poll.

    docs: whether anybody may read the API's documentation at /docs; otherwise /openapi.json asks for a token.
    behind_tls_proxy: only a proxy that ends TLS can reach us, so we may listen beyond loopback without it;
    trusted_proxies: addresses and CIDRs whose `proxy_header` names the caller; cors_origins: web pages that may read
    our answers; allowed_hosts: the names we answer to, none for any (on loopback without a proxy: this machine's);
    exports_max, streams_max: exports and streams of order events one process sends at a time.
    """

    host: str = "127.0.0.1"
    port: Port = 8000
    processes: Positive = 1
    tls_certificate_file: str = ""
    tls_key_file: str = ""
    behind_tls_proxy: bool = False
    trusted_proxies: list[str] = []
    proxy_header: Literal["x-forwarded-for", "forwarded"] = "x-forwarded-for"
    cors_origins: list[str] = []
    allowed_hosts: list[str] = []
    answer_timeout_ms: Positive = 5_000
    exports_max: Positive = 8
    streams_max: Positive = 64
    metrics_token: Secret = Secret()
    docs: bool = False
    idempotency_kept_s: Annotated[int, msgspec.Meta(ge=3_600, le=31 * 86_400)] = 86_400


class LimitsSettings(Section, frozen=True):
    """How often the gateway may be called, by class of routes, as in `600/minute;50/second`: authenticated callers by
    who they are, others by address (IPv6: its /64). failed: refused credentials of one address.

    answer_ms_max: how long a request waits to be counted for all processes; then its own process counts for itself.
    at_once_*: requests a process answers at a time (who shows no credential is one tenant together);
    waiting_by_tenant_max: of them, those that wait for a worker.
    """

    public: str = "600/minute;50/second"
    token: str = "60/minute"  # noqa: S105 - the class of /oauth/*
    read: str = "12000/minute;500/second"
    write: str = "1200/minute;50/second"
    export: str = "60/minute"
    failed: str = "60/minute"
    answer_ms_max: Positive = 50
    at_once_max: Positive = 1_024
    at_once_by_caller_max: Positive = 128
    at_once_by_tenant_max: Positive = 512
    waiting_by_tenant_max: Positive = 256


class BridgeSettings(Section, frozen=True):
    """insert_interval_ms_min: the least time between the starts of two inserts of one source, so that many small
    frames become few parts; window_*: what a connector may have unacknowledged. connects_*,
    failures_*, unknown_*: of one address (IPv6: its /64), the last of connections that have not shown who they are;
    behind a TLS proxy they are the proxy's to limit. stream_origins: web pages that may open the stream, each as a
    browser writes it.
    """

    host: str = "127.0.0.1"
    port: Port = 8001
    instance: str = ""
    tls_certificate_file: str = ""
    tls_key_file: str = ""
    behind_tls_proxy: bool = False
    connections_max: Positive = 1_000
    hello_timeout_s: PositiveFloat = 5.0
    heartbeat_ms: Positive = 5_000
    lease_ttl_s: PositiveFloat = 15.0
    window_rows: Positive = 900_000
    window_frames: Positive = 8_192
    insert_rows_max: Positive = 300_000
    insert_interval_ms_min: Annotated[int, msgspec.Meta(ge=0)] = 20
    insert_timeout_s: PositiveFloat = 30.0
    connects_per_minute_max: Positive = 600
    failures_per_minute_max: Positive = 60
    unknown_by_address_max: Positive = 128
    stream_origins: list[str] = []
    stream_subscribers_max: Positive = 1_000
    stream_subscribers_by_tenant_max: Positive = 250
    stream_buffer_bytes_max: Positive = 256 * 1024
    stream_interval_ms: Positive = 50


class WorkerSettings(Section, frozen=True):
    """*_port: where each queue's worker answers for its health, so that one settings file serves them all.
    health_port: this process' own instead, where several workers of one queue share a machine.

    metrics_token: what a peer from beyond this machine needs to see measurements and reasons; without one nobody does;
    exports_max: exports one worker reads at a time; export_rows_max: more ticks than this are asked for in parts.
    """

    host: str = "127.0.0.1"
    trading_port: Port = 8007
    database_port: Port = 8008
    chain_port: Port = 8009
    health_port: Port | None = None
    instance: str = ""
    metrics_token: Secret = Secret()
    exports_max: Positive = 3
    export_rows_max: Positive = 50_000_000

    def port_of(self, queue: str) -> int:
        """Return where the worker of `queue` listens."""
        return self.health_port or int(getattr(self, f"{queue}_port"))


class TradingSettings(Section, frozen=True):
    """send_timeout_s: a venue's time to answer; absent_s: how long it must not have seen an order before that counts as
    proof. sync_interval_ms: between two looks at an account. market_valid_for_ms: a market order is not sent later.
    key_file: private Ed25519 JWK set that signs orders for terminals, only the trading workers read it.
    paper_*: how orders meet quotes on paper, docs/trading.md; paper_lots_per_quote: 0 for any volume.
    """

    send_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=15)] = 10.0
    absent_s: Annotated[float, msgspec.Meta(ge=0.1, le=3_600)] = 30.0
    sweep_interval_ms: Positive = 250
    sync_interval_ms: Positive = 1_000
    market_valid_for_ms: Positive = 5_000
    key_file: str = ""
    paper_seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    paper_slippage_ticks: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 0
    paper_latency_ms: Annotated[int, msgspec.Meta(ge=0, le=60_000)] = 0
    paper_latency_spread_ms: Annotated[int, msgspec.Meta(ge=0, le=60_000)] = 0
    paper_lots_per_quote: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    paper_quote_age_ms_max: Positive = 60_000


class AuditSettings(Section, frozen=True):
    """key_file: private Ed25519 JWK set that signs checkpoints, only the database workers read it; keys_file: its
    public half. anchor: a file, or s3://bucket/prefix of a bucket that locks its objects, outside of what the ledger's
    administrator can reach.
    """

    key_file: str = ""
    keys_file: str = ""
    anchor: str = ""


class CacheSettings(Section, frozen=True):
    """Kept answers about ticks. value_bytes_max: of one answer; local_bytes_max: of a worker process;
    shared_bytes_max: what a process puts into Redis within `kept_s`. answer_ms_max: how long a read waits for Redis;
    look_ms_max: for the store to say that a kept answer holds; then it is not used.
    """

    enabled: bool = True
    kept_s: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 3_600
    value_bytes_max: Positive = 1024 * 1024
    local_bytes_max: Positive = 64 * 1024 * 1024
    shared_bytes_max: Positive = 64 * 1024 * 1024
    answer_ms_max: Positive = 50
    look_ms_max: Positive = 1_000


class ConnectorSettings(Section, frozen=True):
    """terminal: `module:attribute` of a Terminal adapter; options: its arguments as a JSON object.

    orders: whether it carries out orders, too, and only those that were signed with a key of order_keys_file, a public
    JWK set. deviation_points: how far from the quote a market order may be filled,
    where the symbol's execution heeds it.

    spool_bytes_max: at this size the connector stops reading; what it did not read is backfilled from history later.
    """

    source: str = "demo"
    token: Secret = Secret()
    bridge_url: str = "ws://127.0.0.1:8001"
    tls_ca_file: str = ""
    spool_directory: str = ""
    spool_bytes_max: Positive = 2 * 1024**3
    terminal: str = "bridge.connector.simulated:SimulatedTerminal"
    terminal_options: str = "{}"
    symbols: list[str] = []
    poll_interval_ms: Positive = 100
    page_rows: Positive = 4_096
    call_timeout_s: PositiveFloat = 20.0
    history_days_max: Positive = 30
    orders: bool = False
    order_keys_file: str = ""
    deviation_points: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 20


class RetentionSettings(Section, frozen=True):
    """ticks_days: months wholly older than this are dropped; 0 keeps them for ever."""

    ticks_days: Annotated[int, msgspec.Meta(ge=0)] = 0


class Settings(Section, frozen=True):
    """The whole house. profile: `embedded` engines of one machine, or `cluster` of real servers."""

    profile: str = "cluster"
    log_level: str = "info"
    postgres: PostgresSettings = PostgresSettings()
    clickhouse: ClickHouseSettings = ClickHouseSettings()
    redis: RedisSettings = RedisSettings()
    weaviate: WeaviateSettings = WeaviateSettings()
    arango: ArangoSettings = ArangoSettings()
    auth: AuthSettings = AuthSettings()
    gateway: GatewaySettings = GatewaySettings()
    limits: LimitsSettings = LimitsSettings()
    bridge: BridgeSettings = BridgeSettings()
    worker: WorkerSettings = WorkerSettings()
    trading: TradingSettings = TradingSettings()
    audit: AuditSettings = AuditSettings()
    cache: CacheSettings = CacheSettings()
    connector: ConnectorSettings = ConnectorSettings()
    retention: RetentionSettings = RetentionSettings()
