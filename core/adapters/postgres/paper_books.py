"""Paper accounts in PostgreSQL, and the venue on them."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from core.adapters.postgres.order_desk import PostgresOrderDesk
from core.adapters.postgres.order_rows import ACCOUNT, account_of, json_of
from core.adapters.postgres.pool import Postgres
from core.adapters.postgres.work import PostgresWork
from core.model.ledger import Listing
from core.model.venues import Deal, TradingAccount, VenueOrder
from core.settings import Settings
from core.trading.paper.venue import PaperVenue


class PostgresPaperBook:
    """The `OpenPaperBook` port: a row, locked in an open transaction."""

    def __init__(self, work: PostgresWork, account: str, text: bytes | None) -> None:
        self._work = work
        self._account = account
        self.text = text

    async def listing(self, symbol: str) -> Listing:
        return await PostgresOrderDesk().listing(self._work, self._account, symbol)

    async def keep(
        self, text: bytes, *, busy: bool, deals: Sequence[Deal], ended: Sequence[VenueOrder]
    ) -> None:
        key = (self._work.tenant, self._account)
        await self._work.connection.execute(
            "update paper_books set book = $3, busy = $4 where tenant = $1 and account = $2",
            *key,
            text.decode(),
            busy,
        )
        for deal in deals:
            await self._work.connection.execute(
                "insert into paper_deals (tenant, account, at_ms, deal) values ($1, $2, $3, $4)",
                *key,
                deal.at_ms,
                json_of(deal),
            )
        for one in ended:
            await self._work.connection.execute(
                "insert into paper_orders_ended (tenant, account, at_ms, ended) values ($1, $2, $3, $4)",
                *key,
                one.at_ms,
                json_of(one),
            )

    async def happened(self, since_ms: int) -> tuple[Sequence[Deal], Sequence[VenueOrder]]:
        key = (self._work.tenant, self._account, since_ms)
        deals = await self._work.connection.fetch(
            "select deal from paper_deals where tenant = $1 and account = $2 and at_ms >= $3 order by number",
            *key,
        )
        ended = await self._work.connection.fetch(
            "select ended from paper_orders_ended where tenant = $1 and account = $2 and at_ms >= $3"
            " order by number",
            *key,
        )
        return (
            [msgspec.json.decode(row["deal"], type=Deal) for row in deals],
            [msgspec.json.decode(row["ended"], type=VenueOrder) for row in ended],
        )


class PostgresPaperBooks:
    """The `PaperBooks` port on PostgreSQL."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    @asynccontextmanager
    async def opened(self, account: TradingAccount) -> AsyncIterator[PostgresPaperBook]:
        select = "select book from paper_books where tenant = $1 and account = $2 for update"
        async with self._postgres.of_tenant(account.tenant) as connection:
            row = await connection.fetchrow(select, account.tenant, account.id)
            if row is None:
                await connection.execute(
                    "insert into paper_books (tenant, account) values ($1, $2) on conflict do nothing",
                    account.tenant,
                    account.id,
                )
                row = await connection.fetchrow(select, account.tenant, account.id)
            text = None if row["book"] is None else row["book"].encode()
            yield PostgresPaperBook(PostgresWork(account.tenant, connection), account.id, text)

    async def busy(self) -> Sequence[TradingAccount]:
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(
                f"select {ACCOUNT} from accounts a join paper_books p on p.tenant = a.tenant and p.account = a.id"
                " where p.busy and a.venue = 'paper' order by a.tenant, a.id"
            )
        return [account_of(row) for row in rows]


@asynccontextmanager
async def open_paper_venue(_settings: Settings, services: Mapping[str, Any]) -> AsyncIterator[PaperVenue]:
    yield PaperVenue(books=PostgresPaperBooks(services["postgres"]), quotes=services["latest_quotes"])
