"""The audit trail in the ledger: appended to in the transaction of what it tells of."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Any, Final

from core.adapters.postgres.pool import Postgres
from core.adapters.postgres.work import PostgresWork
from core.auditing.chain import canonical, chained
from core.model.audit import AuditEntry, AuditEvent
from core.settings import Settings

VERSION: Final = version("tickgate")
_HEAD: Final = (
    "select seq, hash, (extract(epoch from clock_timestamp()) * 1000000)::bigint * 1000 as at_ns"
    " from audit_heads where tenant = $1 for update"
)
ENTRY: Final = 'seq, type, account, order_id as "order", event, hash'
_APPEND: Final = (
    "with appended as (insert into audit_events (tenant, seq, type, account, order_id, event, hash)"
    " values ($1, $2, $3, $4, $5, $6, $7) returning tenant, seq, hash)"
    " update audit_heads h set seq = a.seq, hash = a.hash from appended a where h.tenant = a.tenant"
)


class PostgresAuditTrail:
    """The `AuditTrail` port on PostgreSQL. A tenant's stream has its name."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres
        self._moved: Callable[[str], None] | None = None

    def tells(self, moved: Callable[[str], None]) -> None:
        self._moved = moved

    async def append(self, work: PostgresWork, event: AuditEvent) -> None:
        # Whoever has the trail's end keeps all orders of the tenant waiting until the commit: so last of all.
        work.untold.append(event)
        work.tell = partial(self._tell, work)
        if self._moved is not None:
            work.told = partial(self._moved, work.tenant)

    async def _tell(self, work: PostgresWork) -> None:
        head = await work.connection.fetchrow(_HEAD, work.tenant)
        if head is None:
            await work.connection.execute(
                "insert into audit_heads (tenant) values ($1) on conflict do nothing", work.tenant
            )
            head = await work.connection.fetchrow(_HEAD, work.tenant)
        seq, last = head["seq"], head["hash"]
        for event in work.untold:
            seq += 1
            written = canonical(_fields(event, head["at_ns"]))
            last = chained(work.tenant, seq, last, written)
            place = (event.type, event.account, event.order)
            await work.connection.execute(_APPEND, work.tenant, seq, *place, written, last)

    async def events(self, tenant: str, *, after: int, limit: int, order: str = "") -> Sequence[AuditEntry]:
        of_order = " and order_id = $4" if order else ""
        async with self._postgres.of_tenant(tenant) as connection:
            rows = await connection.fetch(
                f"select {ENTRY} from audit_events where tenant = $1 and seq > $2{of_order}"
                " order by seq limit $3",
                tenant,
                after,
                limit,
                *([order] if order else []),
            )
        return [AuditEntry(**row) for row in rows]

    async def newest(self, tenant: str) -> int:
        async with self._postgres.of_tenant(tenant) as connection:
            seq = await connection.fetchval("select seq from audit_heads where tenant = $1", tenant)
        return int(seq or 0)


def _fields(event: AuditEvent, at_ns: int) -> dict[str, Any]:
    return {
        "type": event.type,
        "at_ns": at_ns,
        "actor": event.actor,
        "account": event.account,
        "order": event.order,
        "symbol": event.symbol,
        "strategy": event.strategy,
        "facts": event.facts,
        "trace": event.trace,
        "software": VERSION,
    }


@asynccontextmanager
async def open_audit(_settings: Settings, services: Mapping[str, Any]) -> AsyncIterator[PostgresAuditTrail]:
    yield PostgresAuditTrail(services["postgres"])
