"""Paper accounts in PostgreSQL, and the venue on them."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, Final

import msgspec

from core.adapters.postgres.order_desk import PostgresOrderDesk
from core.adapters.postgres.order_rows import ACCOUNT, account_of, json_of
from core.adapters.postgres.pool import Postgres
from core.adapters.postgres.work import PostgresWork
from core.model.ledger import Listing
from core.model.venues import Deal, TradingAccount, VenueOrder
from core.settings import Settings
from core.trading.paper.book import PaperModels
from core.trading.paper.venue import PaperVenue

_KEEP: Final = (
    "with kept as (update paper_books set book = $3, busy = $4 where tenant = $1 and account = $2),"
    " dealt as (insert into paper_deals (tenant, account, at_ms, deal) select $1, $2, d.at_ms, d.deal"
    " from unnest($5::bigint[], $6::jsonb[]) with ordinality as d (at_ms, deal, place) order by d.place)"
    " insert into paper_orders_ended (tenant, account, at_ms, ended) select $1, $2, e.at_ms, e.ended"
    " from unnest($7::bigint[], $8::jsonb[]) with ordinality as e (at_ms, ended, place) order by e.place"
)


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
        await self._work.connection.execute(
            _KEEP,
            self._work.tenant,
            self._account,
            text.decode(),
            busy,
            [deal.at_ms for deal in deals],
            [json_of(deal) for deal in deals],
            [one.at_ms for one in ended],
            [json_of(one) for one in ended],
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
async def open_paper_venue(settings: Settings, services: Mapping[str, Any]) -> AsyncIterator[PaperVenue]:
    trading = settings.trading
    models = PaperModels(
        seed=trading.paper_seed,
        slippage_ticks=trading.paper_slippage_ticks,
        latency_ms=trading.paper_latency_ms,
        lots_per_quote=Decimal(str(trading.paper_lots_per_quote)) if trading.paper_lots_per_quote else None,
        quote_age_ms_max=trading.paper_quote_age_ms_max,
    )
    books = PostgresPaperBooks(services["postgres"])
    yield PaperVenue(books=books, quotes=services["latest_quotes"], models=models)
