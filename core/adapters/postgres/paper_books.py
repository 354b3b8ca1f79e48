"""Paper accounts in PostgreSQL, and the venue on them."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

import asyncpg
import msgspec

from core.adapters.postgres.order_desk import INSTRUMENTS
from core.adapters.postgres.order_rows import ACCOUNT, account_of, instant, json_of, ms
from core.adapters.postgres.pool import Postgres
from core.adapters.postgres.record_tables import quoted
from core.errors.exceptions import Unavailable, UnknownOutcome
from core.model.ledger import Listing
from core.model.paper import PaperPage, PaperPast
from core.model.records import Instrument
from core.model.venues import Deal, TradingAccount, VenueOrder
from core.settings import Settings
from core.trading.paper.book import PaperModels
from core.trading.paper.venue import PaperVenue

INSTRUMENTS_MAX: Final = 1_000
"""What one book may need to know of at once."""
KEPT_WITHIN: Final = timedelta(seconds=5)
"""Of being read. Deals are looked for from a minute before the last look on: none may be dated earlier than that."""

_FIELDS: Final = ", ".join(f"'{name}', i.{quoted(name)}" for name in INSTRUMENTS.fields)
_SHELF: Final = f"""
with shelf as (select book, version, symbols from paper_books where tenant = $1 and account = $2),
own as (select * from instruments where tenant = $1
    and symbol = any($3::text[] || coalesce((select symbols from shelf), '{{}}'))),
pairs as (select i.* from instruments i where i.tenant = $1 and exists(select from own
    where own.profit_currency <> $4 and (i.base_currency, i.profit_currency)
    in ((own.profit_currency, $4), ($4, own.profit_currency)))),
known as (select * from own union select * from pairs order by id limit {INSTRUMENTS_MAX})
select shelf.book, coalesce(shelf.version, 0) as version, clock_timestamp() as now,
    exists(select from sources where tenant = $1 and name = $5) as reachable,
    (select coalesce(jsonb_agg(jsonb_build_object({_FIELDS}) order by i.id), '[]') from known i) as instruments"""
_PAGE: Final = f"{_SHELF} from (select) as always left join shelf on true"
_VIEW: Final = f"""{_SHELF},
    (select coalesce(jsonb_agg(deal order by number), '[]') from paper_deals
        where tenant = $1 and account = $2 and at_ms >= $6) as deals,
    (select coalesce(jsonb_agg(ended order by number), '[]') from paper_orders_ended
        where tenant = $1 and account = $2 and at_ms >= $6) as ended
from (select) as always left join shelf on true"""
_PAST_OF: Final = """
select (select coalesce(jsonb_agg(deal order by number), '[]') from paper_deals
        where tenant = $1 and account = $2 and deal ->> 'order' = $3) as deals,
    (select coalesce(jsonb_agg(ended order by number), '[]') from paper_orders_ended
        where tenant = $1 and account = $2 and ended ->> 'ticket' = $3) as ended"""
_KEEP: Final = """
with kept as (insert into paper_books as b (tenant, account, book, busy, symbols, version)
    select $1, $2, $3, $4, $5, $6 + 1 where clock_timestamp() < $11
    on conflict (tenant, account) do update set book = excluded.book, busy = excluded.busy,
        symbols = excluded.symbols, version = excluded.version
        where b.version = $6 and clock_timestamp() < $11 returning version),
dealt as (insert into paper_deals (tenant, account, at_ms, deal) select $1, $2, d.at_ms, d.deal
    from kept, unnest($7::bigint[], $8::jsonb[]) with ordinality as d (at_ms, deal, place) order by d.place),
closed as (insert into paper_orders_ended (tenant, account, at_ms, ended) select $1, $2, e.at_ms, e.ended
    from kept, unnest($9::bigint[], $10::jsonb[]) with ordinality as e (at_ms, ended, place) order by e.place)
select exists(select from kept),
    -- Its transaction does not wait for the disk. Whatever the ledger makes of it is committed later, to the same log.
    set_config('synchronous_commit', 'off', true)"""


class PostgresPaperBooks:
    """The `PaperBooks` port on PostgreSQL. One statement does each thing, for a venue is nobody's tenant."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def opened(self, account: TradingAccount, symbol: str = "") -> PaperPage:
        async with self._postgres.acquire() as connection:
            return _page(account, await connection.fetchrow(_PAGE, *_asked(account, symbol)))

    async def viewed(self, account: TradingAccount, since_ms: int) -> tuple[PaperPage, PaperPast]:
        async with self._postgres.acquire() as connection:
            row = await connection.fetchrow(_VIEW, *_asked(account, ""), since_ms)
        return _page(account, row), _past(row)

    async def past_of(self, account: TradingAccount, ticket: str) -> PaperPast:
        async with self._postgres.acquire() as connection:
            return _past(await connection.fetchrow(_PAST_OF, account.tenant, account.id, ticket))

    async def keep(
        self,
        account: TradingAccount,
        page: PaperPage,
        text: bytes,
        *,
        symbols: Collection[str],
        busy: bool,
        deals: Sequence[Deal],
        ended: Sequence[VenueOrder],
    ) -> bool:
        read_at = instant(page.at_ms)
        assert read_at is not None
        try:
            async with self._postgres.acquire() as connection:
                kept = await connection.fetchval(
                    _KEEP,
                    account.tenant,
                    account.id,
                    text.decode(),
                    busy,
                    sorted(symbols),
                    page.version,
                    [deal.at_ms for deal in deals],
                    [json_of(deal) for deal in deals],
                    [one.at_ms for one in ended],
                    [json_of(one) for one in ended],
                    read_at + KEPT_WITHIN,
                )
        except Unavailable as e:
            raise UnknownOutcome("nobody can say whether the book was kept", detail=e.detail) from e
        return bool(kept)

    async def busy(self) -> Sequence[TradingAccount]:
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(
                f"select {ACCOUNT} from accounts a join paper_books p on p.tenant = a.tenant and p.account = a.id"
                " where p.busy and a.venue = 'paper' order by a.tenant, a.id"
            )
        return [account_of(row) for row in rows]


def _asked(account: TradingAccount, symbol: str) -> tuple[Any, ...]:
    symbols = [symbol] if symbol else []
    return account.tenant, account.id, symbols, account.currency, account.source


def _page(account: TradingAccount, row: asyncpg.Record) -> PaperPage:
    return PaperPage(
        text=None if row["book"] is None else row["book"].encode(),
        version=row["version"],
        at_ms=ms(row["now"]) or 0,
        listing=Listing(
            account=account,
            reachable=row["reachable"],
            instruments=msgspec.json.decode(row["instruments"], type=tuple[Instrument, ...]),
        ),
    )


def _past(row: asyncpg.Record) -> PaperPast:
    return PaperPast(
        deals=msgspec.json.decode(row["deals"], type=tuple[Deal, ...]),
        ended=msgspec.json.decode(row["ended"], type=tuple[VenueOrder, ...]),
    )


@asynccontextmanager
async def open_paper_venue(settings: Settings, services: Mapping[str, Any]) -> AsyncIterator[PaperVenue]:
    trading = settings.trading
    models = PaperModels(
        seed=trading.paper_seed,
        slippage_ticks=trading.paper_slippage_ticks,
        latency_ms=trading.paper_latency_ms,
        latency_spread_ms=trading.paper_latency_spread_ms,
        lots_per_quote=Decimal(str(trading.paper_lots_per_quote)) if trading.paper_lots_per_quote else None,
        quote_age_ms_max=trading.paper_quote_age_ms_max,
    )
    books = PostgresPaperBooks(services["postgres"])
    yield PaperVenue(books=books, quotes=services["latest_quotes"], models=models)
