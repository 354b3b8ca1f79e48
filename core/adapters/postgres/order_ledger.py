"""Where orders are moved on: one function changes an order's state, and writes down that it did."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

import msgspec

from core.adapters.postgres.order_desk import WORKING, PostgresOrderDesk, values_of
from core.adapters.postgres.order_rows import (
    ACCOUNT,
    ASKED,
    BOOK,
    ENTRY,
    ENTRY_OF_O,
    FILL,
    HOLDING,
    STANDS,
    account_of,
    entry_of,
    holding_of,
    instant,
    json_of,
    ms,
    outbox_row_of,
    standing_of,
)
from core.adapters.postgres.pool import Postgres
from core.adapters.postgres.work import PostgresWork, operators_work, work_of
from core.errors.exceptions import Defect, NotFound
from core.model.ledger import Break, Command, Fill, Holding, OrderEntry, OutboxRow, Standing
from core.model.orders import OrderState, may_move
from core.model.venues import Deal, OrderChange, TradingAccount
from core.settings import Settings
from core.telemetry.tracing import current_traceparent

_INSTANTS: Final = {"sent_at_ms": "sent_at", "absent_since_ms": "absent_since"}
_OF_ORDER: Final = frozenset(ASKED) - {"tenant", "id", "account", "symbol", "side", "type"}
_OF_ENTRY: Final = frozenset(STANDS)
_EVENT: Final = (
    "insert into order_events (tenant, order_id, seq, old_state, new_state, what, detail, traceparent)"
    " values ($1, $2, $3, $4, $5, $6, $7, $8)"
)
_MOVE: Final = (
    f"with moved as (update orders set {{assigned}} where tenant = $1 and id = $2 and version = $3 returning {ENTRY}),"
    " counted as (update account_books b set moves = moves + 1 from moved"
    " where b.tenant = moved.tenant and b.account = moved.account),"
    " told as (insert into order_events (tenant, order_id, seq, old_state, new_state, what, detail, traceparent)"
    " select tenant, id, version, $4::text, $5::text, $6::text, $7::jsonb, $8::text from moved),"
    " done as (delete from order_outbox x using moved where x.tenant = moved.tenant and x.order_id = moved.id"
    " and x.command = $9::text) select * from moved"
)
_LOCK: Final = (
    # Both rows are as they are under the locks, whoever had them before: the account's first, as everybody takes them.
    f"select {ACCOUNT}, {BOOK}, {ENTRY_OF_O} from orders o join accounts a on a.tenant = o.tenant and a.id = o.account"
    " join account_books b on b.tenant = o.tenant and b.account = o.account"
    " where o.tenant = $1 and o.id = $2 for update of b, o"
)
_DUE: Final = (
    "update order_outbox o set due_at = clock_timestamp() + make_interval(secs => $2), tries = tries + 1"
    " from (select id from order_outbox where due_at <= clock_timestamp() order by due_at limit $1"
    " for update skip locked) due where o.id = due.id returning o.*"
)
_RECORD: Final = (
    f"insert into fills (tenant, {FILL}) select $1, * from unnest($2::text[], $3::text[], $4::text[], $5::text[],"
    " $6::text[], $7::text[], $8::text[], $9::numeric[], $10::numeric[], $11::numeric[], $12::numeric[],"
    " $13::bigint[]) on conflict do nothing returning account, deal"
)
_HELD: Final = tuple(name for name in HOLDING.split(", ") if name != "account")
_HOLD: Final = (
    "with held as (select * from unnest($3::text[], $4::text[], $5::text[], $6::numeric[], $7::numeric[],"
    f" $8::numeric[], $9::numeric[], $10::text[], $11::bigint[]) as held ({', '.join(_HELD)})),"
    " gone as (delete from positions where tenant = $1 and account = $2 and ticket <> all($3::text[]))"
    f" insert into positions (tenant, account, {', '.join(_HELD)}) select $1, $2, held.* from held"
    " on conflict (tenant, account, ticket) do update set"
    f" {', '.join(f'{name} = excluded.{name}' for name in _HELD if name != 'ticket')}"
)
HINTED_LEASE_S: Final = 20.0
_DUE_OF: Final = (
    # Its first second belongs to whoever heard the hint; who sweeps comes later.
    "update order_outbox o set due_at = clock_timestamp() + make_interval(secs => $3), tries = tries + 1"
    " from (select id from order_outbox where tenant = $1 and order_id = $2 and tries = 0 order by id"
    " for update skip locked) due where o.id = due.id returning o.*"
)


class PostgresOrderLedger(PostgresOrderDesk):
    """The `OrderLedger` port on PostgreSQL."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    def work(self, tenant: str, *, holding_risk: bool = False) -> AbstractAsyncContextManager[PostgresWork]:
        return work_of(self._postgres, tenant, holding_risk=holding_risk)

    def operators_work(self) -> AbstractAsyncContextManager[PostgresWork]:
        return operators_work(self._postgres)

    async def now_ms(self, work: PostgresWork) -> int:
        return ms(await work.connection.fetchval("select clock_timestamp()")) or 0

    async def found(self, work: PostgresWork, order_id: str) -> OrderEntry:
        row = await work.connection.fetchrow(
            f"select {ENTRY} from orders where tenant = $1 and id = $2", work.tenant, order_id
        )
        if row is None:
            raise not_found(order_id)
        return entry_of(row)

    async def locked(self, work: PostgresWork, order_id: str) -> OrderEntry:
        row = await work.connection.fetchrow(_LOCK, work.tenant, order_id)
        if row is None:
            # Denied before its account had any other order: it has no book, and never moves.
            return await self.found(work, order_id)
        entry = entry_of(row)
        work.standings[entry.order.account] = standing_of(account_of(row), row)
        return entry

    async def move(
        self,
        work: PostgresWork,
        entry: OrderEntry,
        state: OrderState,
        *,
        what: str,
        detail: Mapping[str, Any] | None = None,
        done: Command | None = None,
        **changes: Any,
    ) -> OrderEntry:
        if state is not entry.state and not may_move(entry.state, state):
            raise Defect(
                f"an order may not go from {entry.state} to {state}",
                code="ILLEGAL_MOVE",
                detail=entry.order.id,
            )
        names, values = _assignments(changes)
        places = [f"{name} = ${number}" for number, name in enumerate(names, 10)]
        assigned = ", ".join(
            ["state = $5", "version = version + 1", "updated_at = clock_timestamp()", *places]
        )
        key = (work.tenant, entry.order.id, entry.version)
        row = await work.connection.fetchrow(
            _MOVE.format(assigned=assigned),
            *key,
            entry.state,
            state,
            what,
            json_of(dict(detail or {})),
            current_traceparent() or entry.traceparent,
            done,
            *values,
        )
        if row is None:
            raise Defect("an order was changed beside its lock", code="ORDER_VERSION", detail=entry.order.id)
        if standing := work.standings.get(entry.order.account):
            work.standings[entry.order.account] = replace(standing, moves=standing.moves + 1)
        return entry_of(row)

    async def put(
        self, work: PostgresWork, entry: OrderEntry, command: Command, change: OrderChange | None = None
    ) -> None:
        await work.connection.execute(
            "insert into order_outbox (tenant, account, order_id, command, detail) values ($1, $2, $3, $4, $5)",
            work.tenant,
            entry.order.account,
            entry.order.id,
            command,
            json_of(change if change is not None else {}),
        )

    async def done(self, work: PostgresWork, order_id: str, command: Command) -> bool:
        gone = await work.connection.execute(
            "delete from order_outbox where tenant = $1 and order_id = $2 and command = $3",
            work.tenant,
            order_id,
            command,
        )
        return bool(gone != "DELETE 0")

    async def in_motion(self, work: PostgresWork, account: str) -> Sequence[OrderEntry]:
        rows = await work.connection.fetch(
            f"select {ENTRY} from orders where tenant = $1 and account = $2 and state in {WORKING} order by id",
            work.tenant,
            account,
        )
        return [entry_of(row) for row in rows]

    async def any_in_motion(self, tenant: str, account: str) -> bool:
        async with self._postgres.of_tenant(tenant) as connection:
            found = await connection.fetchval(
                f"select exists(select from orders where tenant = $1 and account = $2 and state in {WORKING})",
                tenant,
                account,
            )
        return bool(found)

    async def by_venue_order(self, work: PostgresWork, account: str, ticket: str) -> OrderEntry | None:
        row = await work.connection.fetchrow(
            f"select {ENTRY} from orders where tenant = $1 and account = $2 and venue_order = $3",
            work.tenant,
            account,
            ticket,
        )
        return None if row is None else entry_of(row)

    async def adopt(self, work: PostgresWork, entry: OrderEntry) -> None:
        columns = (*ASKED, *STANDS, "state", "denials")
        places = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
        await work.connection.execute(
            f"insert into orders ({', '.join(columns)}) values ({places})", *values_of(entry)
        )
        event = (1, OrderState.CREATED, entry.state, "order.adopted", "{}", entry.traceparent)
        await work.connection.execute(_EVENT, work.tenant, entry.order.id, *event)

    async def record_fills(self, work: PostgresWork, fills: Sequence[Fill]) -> Sequence[Fill]:
        if not fills:
            return []
        names = FILL.split(", ")
        columns = [
            [fill.order if name == "order_id" else getattr(fill, name) for fill in fills] for name in names
        ]
        rows = await work.connection.fetch(_RECORD, work.tenant, *columns)
        new = {(row["account"], row["deal"]) for row in rows}
        fresh = []
        for fill in fills:
            # The same deal may have been told twice at once: the first is what was kept.
            if (key := (fill.account, fill.deal)) in new:
                new.discard(key)
                fresh.append(fill)
        return fresh

    async def unrecorded(self, work: PostgresWork, account: str, deals: Sequence[Deal]) -> Sequence[Deal]:
        rows = await work.connection.fetch(
            "select asked.deal from unnest($3::text[]) asked (deal) where not exists(select from fills f"
            " where f.tenant = $1 and f.account = $2 and f.deal = asked.deal)",
            work.tenant,
            account,
            [deal.ticket for deal in deals],
        )
        missing = {row["deal"] for row in rows}
        return [deal for deal in deals if deal.ticket in missing]

    async def filled(self, work: PostgresWork, order_id: str) -> tuple[Decimal, Decimal | None]:
        row = await work.connection.fetchrow(
            "select coalesce(sum(volume), 0) as volume, sum(volume * price) / nullif(sum(volume), 0) as price"
            " from fills where tenant = $1 and order_id = $2",
            work.tenant,
            order_id,
        )
        return row["volume"], row["price"]

    async def holdings(self, work: PostgresWork, account: str) -> Sequence[Holding]:
        rows = await work.connection.fetch(
            f"select {HOLDING} from positions where tenant = $1 and account = $2 order by ticket",
            work.tenant,
            account,
        )
        return [holding_of(row) for row in rows]

    async def hold(self, work: PostgresWork, account: str, holdings: Sequence[Holding]) -> None:
        columns = [
            [one.order if name == "order_id" else getattr(one, name) for one in holdings] for name in _HELD
        ]
        await work.connection.execute(_HOLD, work.tenant, account, *columns)

    async def stand(self, work: PostgresWork, standing: Standing) -> None:
        await work.connection.execute(
            "update account_books set balance = $3, equity = $4, margin = $5, margin_free = $6, notional = $7,"
            " day = $8, day_start_equity = $9, peak_equity = $10, consecutive_rejects = $11, deals_until_ms = $12,"
            " viewed_at = $13, reconciled_at = $14 where tenant = $1 and account = $2",
            work.tenant,
            standing.account.id,
            standing.balance,
            standing.equity,
            standing.margin,
            standing.margin_free,
            standing.notional,
            standing.day,
            standing.day_start_equity,
            standing.peak_equity,
            standing.consecutive_rejects,
            standing.deals_until_ms,
            instant(standing.viewed_at_ms),
            instant(standing.reconciled_at_ms),
        )
        moves = work.standings.get(standing.account.id, standing).moves
        work.standings[standing.account.id] = replace(standing, moves=moves)

    async def note_breaks(self, work: PostgresWork, account: str, breaks: Sequence[Break]) -> None:
        for found in breaks:
            await work.connection.execute(
                "insert into breaks (tenant, account, sort, subject, detail) values ($1, $2, $3, $4, $5)",
                work.tenant,
                account,
                found.sort,
                found.subject,
                json_of(found.detail),
            )

    async def due(self, limit: int, lease_s: float) -> Sequence[OutboxRow]:
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(_DUE, limit, lease_s)
        return [outbox_row_of(row) for row in rows]

    async def due_of(self, tenant: str, order_id: str) -> Sequence[OutboxRow]:
        async with self._postgres.of_tenant(tenant) as connection:
            rows = await connection.fetch(_DUE_OF, tenant, order_id, HINTED_LEASE_S)
        return [outbox_row_of(row) for row in rows]

    async def accounts(self) -> Sequence[TradingAccount]:
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(
                f"select {ACCOUNT} from accounts a where a.venue <> 'none' and exists(select from sources s"
                " where s.tenant = a.tenant and s.name = a.source) order by a.tenant, a.id"
            )
        return [account_of(row) for row in rows]


def not_found(order_id: str) -> NotFound:
    return NotFound(f"there is no order {order_id[:40]!r}", code="ORDER_NOT_FOUND")


def _assignments(changes: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
    names: list[str] = []
    values: list[Any] = []
    for name, value in changes.items():
        if name in _INSTANTS:
            names.append(_INSTANTS[name])
            values.append(instant(value))
        elif name == "denials":
            names.append(name)
            values.append(msgspec.json.encode(value).decode())
        else:
            assert name in _OF_ORDER | _OF_ENTRY, f"{name} is a column that may change"
            names.append(name)
            values.append(value)
    return names, values


@asynccontextmanager
async def open_order_ledger(
    _settings: Settings, services: Mapping[str, Any]
) -> AsyncIterator[PostgresOrderLedger]:
    yield PostgresOrderLedger(services["postgres"])
