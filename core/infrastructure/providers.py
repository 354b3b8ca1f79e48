"""Every service of the house: what it requires, and the adapter that opens it. The hub reads this table."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from core.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """opens: `module:attribute` of a function (settings, services) -> async context manager over the service.

    requires: services opened before it and handed to `opens`. pinged: whether health checks ask it `ping()`.
    schema: of a store, `module:attribute` of a function (service) -> the steps of its schema that were applied; a store
        whose schema is not this version's is not worked with.
    store: what health reports call the store behind it; stand_in: what keeps its tables instead.
    """

    name: str
    opens: str
    requires: frozenset[str] = field(default_factory=frozenset)
    pinged: bool = False
    schema: str = ""
    store: str = ""
    stand_in: str = ""


def _table(*providers: Provider) -> dict[str, Provider]:
    return {provider.name: provider for provider in providers}


PROVIDERS: Final = _table(
    Provider(
        name="postgres",
        opens="core.adapters.postgres.pool:open_pool",
        pinged=True,
        schema="core.adapters.postgres.schema:applied_steps",
        store="postgres",
    ),
    Provider(
        name="clickhouse",
        opens="core.adapters.clickhouse.client:open_client",
        pinged=True,
        schema="core.adapters.clickhouse.schema:applied_steps",
        store="clickhouse",
    ),
    Provider(
        name="redis",
        opens="core.adapters.redis.client:open_client",
        pinged=True,
        schema="core.adapters.redis.schema:applied_steps",
        store="redis",
    ),
    Provider(
        name="weaviate",
        opens="core.adapters.weaviate.client:open_client",
        pinged=True,
        schema="core.adapters.weaviate.schema:applied_steps",
        store="weaviate",
    ),
    Provider(name="postgres_dumps", opens="core.adapters.postgres.dumps:open_dumps"),
    Provider(
        name="clickhouse_dumps",
        opens="core.adapters.clickhouse.dumps:open_dumps",
        requires=frozenset({"clickhouse"}),
    ),
    Provider(
        name="weaviate_dumps",
        opens="core.adapters.weaviate.dumps:open_dumps",
        requires=frozenset({"weaviate"}),
    ),
    Provider(
        name="arango_dumps",
        opens="core.adapters.arango.dumps:open_dumps",
        requires=frozenset({"arango"}),
    ),
    Provider(
        name="redis_dumps",
        opens="core.adapters.redis.dumps:open_dumps",
        requires=frozenset({"redis"}),
    ),
    Provider(
        name="arango",
        opens="core.adapters.arango.client:open_client",
        pinged=True,
        schema="core.adapters.arango.schema:applied_steps",
        store="arango",
    ),
    Provider(
        name="sources",
        opens="core.adapters.postgres.sources:open_sources",
        requires=frozenset({"postgres"}),
    ),
    Provider(
        name="tenant_sources",
        opens="core.adapters.postgres.tenant_sources:open_tenant_sources",
        requires=frozenset({"postgres"}),
    ),
    Provider(
        name="identity",
        opens="core.adapters.postgres.identity:open_identity",
        requires=frozenset({"postgres"}),
    ),
    Provider(
        name="revocations",
        opens="core.adapters.postgres.revocations:open_revocations",
        requires=frozenset({"postgres"}),
        pinged=True,
    ),
    Provider(
        name="api_keys",
        opens="core.adapters.postgres.api_keys:open_api_keys",
        requires=frozenset({"postgres", "revocations"}),
    ),
    Provider(
        name="idempotency",
        opens="core.adapters.postgres.idempotency:open_idempotency",
        requires=frozenset({"postgres"}),
    ),
    Provider(
        name="locks",
        opens="core.adapters.postgres.locks:open_locks",
        requires=frozenset({"postgres"}),
    ),
    Provider(
        name="access_tokens",
        opens="core.adapters.jose.access_tokens:open_access_tokens",
        requires=frozenset({"revocations"}),
    ),
    Provider(
        name="grants",
        opens="core.adapters.postgres.grants:open_grants",
        requires=frozenset({"postgres", "revocations"}),
    ),
    Provider(
        name="ledger_records",
        opens="core.adapters.postgres.records:open_records",
        requires=frozenset({"postgres"}),
    ),
    Provider(
        name="order_ledger",
        opens="core.adapters.postgres.order_ledger:open_order_ledger",
        requires=frozenset({"postgres"}),
    ),
    Provider(
        name="approvals",
        opens="core.adapters.postgres.approvals:open_approvals",
        requires=frozenset({"postgres"}),
    ),
    Provider(
        name="risk_book",
        opens="core.adapters.postgres.risk_desk:open_risk_desk",
        requires=frozenset({"postgres"}),
    ),
    Provider(name="audit", opens="core.adapters.postgres.audit:open_audit", requires=frozenset({"postgres"})),
    Provider(name="trail_news", opens="core.adapters.redis.trail:open_trail_news"),
    Provider(name="trail_ears", opens="core.adapters.redis.trail:open_trail_ears"),
    Provider(
        name="audit_archive",
        opens="core.adapters.postgres.audit_archive:open_audit_archive",
        requires=frozenset({"postgres"}),
    ),
    Provider(
        name="paper_venue",
        opens="core.adapters.postgres.paper_books:open_paper_venue",
        requires=frozenset({"postgres", "latest_quotes"}),
    ),
    Provider(
        name="trading_reads",
        opens="core.adapters.postgres.trading_reads:open_trading_reads",
        requires=frozenset({"postgres"}),
    ),
    Provider(
        name="similarity",
        opens="core.adapters.postgres.similarity:open_similarity",
        requires=frozenset({"postgres"}),
        store="weaviate",
        stand_in="pgvector in PostgreSQL",
    ),
    Provider(
        name="topology",
        opens="core.adapters.postgres.topology:open_topology",
        requires=frozenset({"postgres"}),
        store="arango",
        stand_in="recursive SQL in PostgreSQL",
    ),
    Provider(
        name="tick_store",
        opens="core.adapters.clickhouse.tick_store:open_tick_store",
        requires=frozenset({"clickhouse"}),
    ),
    Provider(
        name="tick_reader",
        opens="core.adapters.clickhouse.tick_reader:open_tick_reader",
        requires=frozenset({"clickhouse"}),
    ),
    Provider(
        name="tick_changes",
        opens="core.adapters.clickhouse.changes:open_tick_changes",
        requires=frozenset({"clickhouse"}),
    ),
    Provider(
        name="tick_pages",
        opens="core.adapters.clickhouse.tick_pages:open_tick_pages",
        requires=frozenset({"clickhouse"}),
    ),
    Provider(
        name="bar_pages",
        opens="core.adapters.clickhouse.bar_pages:open_bar_pages",
        requires=frozenset({"clickhouse"}),
    ),
    Provider(
        name="retention",
        opens="core.adapters.clickhouse.retention:open_retention",
        requires=frozenset({"clickhouse"}),
    ),
    Provider(
        name="certifier",
        opens="core.adapters.clickhouse.certificates:open_certifier",
        requires=frozenset({"clickhouse"}),
    ),
    Provider(
        name="tick_records",
        opens="core.adapters.clickhouse.records:open_records",
        requires=frozenset({"clickhouse", "locks"}),
    ),
    Provider(
        name="latest_quotes",
        opens="core.adapters.redis.latest_quotes:open_latest_quotes",
        requires=frozenset({"redis"}),
    ),
    Provider(
        name="brief_records",
        opens="core.adapters.redis.records:open_records",
        requires=frozenset({"redis"}),
    ),
    Provider(
        name="cache",
        opens="core.adapters.redis.cache:open_cache",
        requires=frozenset({"redis"}),
    ),
    Provider(name="terminal_relay", opens="core.adapters.redis.terminal_relay:open_terminal_relay"),
    Provider(
        name="mt5_venue",
        opens="core.adapters.redis.terminal_orders:open_terminal_orders",
        requires=frozenset({"sources"}),
    ),
    Provider(name="answer_streams", opens="core.adapters.redis.answer_streams:open_answer_streams"),
    Provider(name="rate_limiter", opens="core.adapters.redis.rate_limiter:open_rate_limiter"),
    Provider(name="job_queue", opens="core.adapters.redis.job_queue:open_job_queue"),
    Provider(
        name="queue_control",
        opens="core.adapters.redis.job_queue_control:open_queue_control",
        requires=frozenset({"job_queue"}),
    ),
    Provider(
        name="dead_letters",
        opens="core.adapters.postgres.dead_letters:open_dead_letters",
        requires=frozenset({"postgres"}),
    ),
    Provider(name="job_runner", opens="core.adapters.redis.job_queue_worker:open_job_runner"),
)

CHOSEN: Final[dict[str, Provider]] = {
    "weaviate": Provider(
        name="similarity",
        opens="core.adapters.weaviate.similarity:open_similarity",
        requires=frozenset({"locks", "weaviate"}),
    ),
    "arango": Provider(
        name="topology",
        opens="core.adapters.arango.topology:open_topology",
        requires=frozenset({"arango"}),
    ),
}
"""By the section of the settings whose `host`, once set, puts this provider in place of the one that stands in."""


def providers_of(settings: Settings) -> Mapping[str, Provider]:
    """Return the table as these settings have it."""
    chosen = [provider for section, provider in CHOSEN.items() if getattr(settings, section).host]
    return {**PROVIDERS, **{provider.name: provider for provider in chosen}}
