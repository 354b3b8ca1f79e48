"""What callers ask of trading: orders, their events, fills, positions, how an account stands."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from core.adapters.postgres.order_ledger import not_found
from core.adapters.postgres.order_rows import (
    ACCOUNT,
    BOOK,
    ENTRY,
    FILL,
    HOLDING,
    account_of,
    entry_of,
    fill_of,
    holding_of,
    ms,
    standing_of,
)
from core.adapters.postgres.pool import Postgres
from core.errors.exceptions import NotFound
from core.model.ledger import Fill, Holding, OrderEntry, OrderEvent, Standing
from core.model.orders import OrderState
from core.settings import Settings

ORDER_FILTERS: Final = ("account", "symbol", "state", "strategy", "client_order_id")
FILL_FILTERS: Final = {"account": "account", "symbol": "symbol", "order": "order_id"}
EVENTS_MAX: Final = 10_000


class PostgresTradingReads:
    """The `TradingReads` port on PostgreSQL."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def order(self, tenant: str, order_id: str) -> OrderEntry:
        async with self._postgres.of_tenant(tenant) as connection:
            row = await connection.fetchrow(
                f"select {ENTRY} from orders where tenant = $1 and id = $2", tenant, order_id
            )
        if row is None:
            raise not_found(order_id)
        return entry_of(row)

    async def events(self, tenant: str, order_id: str) -> Sequence[OrderEvent]:
        async with self._postgres.of_tenant(tenant) as connection:
            rows = await connection.fetch(
                "select seq, at, old_state, new_state, what, detail, traceparent from order_events"
                " where tenant = $1 and order_id = $2 order by seq limit $3",
                tenant,
                order_id,
                EVENTS_MAX,
            )
        if not rows:
            raise not_found(order_id)
        return [
            OrderEvent(
                seq=row["seq"],
                at_ms=ms(row["at"]) or 0,
                old_state=OrderState(row["old_state"]),
                new_state=OrderState(row["new_state"]),
                what=row["what"],
                detail=msgspec.json.decode(row["detail"]),
                traceparent=row["traceparent"],
            )
            for row in rows
        ]

    async def orders(
        self, tenant: str, *, before: str | None, limit: int, where: Mapping[str, str]
    ) -> Sequence[OrderEntry]:
        names = [name for name in ORDER_FILTERS if name in where]
        filters = "".join(f" and {name} = ${number}" for number, name in enumerate(names, 4))
        async with self._postgres.of_tenant(tenant) as connection:
            rows = await connection.fetch(
                f"select {ENTRY} from orders where tenant = $1 and ($2::text is null or id < $2){filters}"
                " order by id desc limit $3",
                tenant,
                before,
                limit,
                *(where[name] for name in names),
            )
        return [entry_of(row) for row in rows]

    async def fills(
        self, tenant: str, *, after: tuple[int, str, str] | None, limit: int, where: Mapping[str, str]
    ) -> Sequence[Fill]:
        names = [name for name in FILL_FILTERS if name in where]
        filters = "".join(f" and {FILL_FILTERS[name]} = ${number}" for number, name in enumerate(names, 6))
        at_ms, account, deal = after or (-1, "", "")
        async with self._postgres.of_tenant(tenant) as connection:
            rows = await connection.fetch(
                f"select {FILL} from fills where tenant = $1 and (at_ms, account, deal) > ($2, $3, $4){filters}"
                " order by at_ms, account, deal limit $5",
                tenant,
                at_ms,
                account,
                deal,
                limit,
                *(where[name] for name in names),
            )
        return [fill_of(row) for row in rows]

    async def positions(self, tenant: str, account: str | None) -> Sequence[Holding]:
        async with self._postgres.of_tenant(tenant) as connection:
            rows = await connection.fetch(
                f"select {HOLDING} from positions where tenant = $1 and ($2::text is null or account = $2)"
                " order by account, ticket",
                tenant,
                account,
            )
        return [holding_of(row) for row in rows]

    async def standing(self, tenant: str, account: str) -> Standing:
        async with self._postgres.of_tenant(tenant) as connection:
            row = await connection.fetchrow(
                f"select {ACCOUNT}, {BOOK} from accounts a left join account_books b on b.tenant = a.tenant"
                " and b.account = a.id where a.tenant = $1 and a.id = $2",
                tenant,
                account,
            )
        if row is None:
            raise NotFound(f"there is no account {account[:64]!r}", code="ACCOUNT_NOT_FOUND")
        return standing_of(account_of(row), row)


@asynccontextmanager
async def open_trading_reads(
    _settings: Settings, services: Mapping[str, Any]
) -> AsyncIterator[PostgresTradingReads]:
    yield PostgresTradingReads(services["postgres"])
