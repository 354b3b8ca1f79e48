"""Where orders come in: what the ledger knows when one is judged, read under the account's lock."""

from dataclasses import replace
from typing import Any, Final

from core.adapters.postgres.order_rows import (
    ACCOUNT,
    ASKED,
    BOOK,
    STANDS,
    account_of,
    instant,
    json_of,
    ms,
    standing_of,
)
from core.adapters.postgres.record_tables import Table, described, quoted
from core.adapters.postgres.work import PostgresWork
from core.errors.exceptions import NotFound
from core.model.ledger import DeskFacts, Listing, OrderEntry, Standing
from core.model.orders import Order
from core.model.records import Instrument, RecordKind
from core.model.risk import Exposure
from core.model.venues import TradingAccount

INSTRUMENTS: Final = Table(**described(RecordKind.INSTRUMENTS))
UNCOUNTED: Final = "('QUEUED', 'SENDING', 'UNKNOWN')"
"""States of orders a venue may not have heard of yet."""
WORKING: Final = (
    "('QUEUED', 'SENDING', 'UNKNOWN', 'ACCEPTED', 'PARTIALLY_FILLED', 'PENDING_CANCEL', 'PENDING_MODIFY')"
)

_LISTING: Final = (
    # One statement: each is a round trip. Without an instrument its columns are null.
    f"select {ACCOUNT}, exists(select from sources s where s.tenant = a.tenant and s.name = a.source) as reachable,"
    f" {', '.join(f'i.{quoted(name)}' for name in INSTRUMENTS.fields)} from accounts a left join lateral"
    " (select * from instruments i where i.tenant = a.tenant and (i.symbol = $3 or exists(select from instruments asked"
    " where asked.tenant = a.tenant and asked.symbol = $3 and asked.profit_currency <> a.currency"
    " and ((i.base_currency, i.profit_currency) = (asked.profit_currency, a.currency)"
    " or (i.base_currency, i.profit_currency) = (a.currency, asked.profit_currency))))"
    " order by i.id limit 16) i on true where a.tenant = $1 and a.id = $2 order by i.id"
)
_BOOKS: Final = (
    f"select {ACCOUNT}, {BOOK} from accounts a"
    " join account_books b on b.tenant = a.tenant and b.account = a.id"
)
_LOCK: Final = f"{_BOOKS} where a.tenant = $1 and a.id = $2 for update of b"
_FACTS: Final = f"""
-- Each part finds its rows by an index: an account's history is long. What is asked of the clock is so once.
select clock_timestamp() as now, moving.*, lately.*,
    (select coalesce(sum(case side when 'buy' then volume else -volume end), 0) from positions
        where tenant = $1 and account = $2 and symbol = $3) as position,
    (select coalesce(sum(case side when 'buy' then volume else -volume end), 0) from positions
        where tenant = $1 and account = $2 and symbol = $3 and ticket = $12) as named,
    $11::text <> '' and exists(select from orders where tenant = $1 and account = $2 and client_order_id = $11
        and state <> 'DENIED') as id_used
from (
    select coalesce(sum(volume - filled_volume) filter (where working and symbol = $3 and side = 'buy'), 0) as buys,
        coalesce(sum(volume - filled_volume) filter (where working and symbol = $3 and side = 'sell'), 0) as sells,
        coalesce(sum(volume - filled_volume) filter (where working and symbol = $3 and side = 'buy'
            and position = $12), 0) as named_buys,
        coalesce(sum(volume - filled_volume) filter (where working and symbol = $3 and side = 'sell'
            and position = $12), 0) as named_sells,
        coalesce(sum(margin_needed) filter (where uncounted), 0) as margin_moving,
        coalesce(sum(case when uncounted then notional else notional * (volume - filled_volume) / volume end), 0)
            as notional_moving
    from (
        select symbol, side, position, volume, filled_volume, notional, margin_needed,
            state in {UNCOUNTED} or updated_at > coalesce($6::timestamptz, '-infinity') as uncounted, true as working
        from orders where tenant = $1 and account = $2 and state in {WORKING}
        union all select symbol, side, position, volume, filled_volume, notional, margin_needed, true, false
        from orders where tenant = $1 and account = $2 and state = 'FILLED'
            and updated_at > coalesce($6::timestamptz, '-infinity')
    ) o
) moving, (
    select count(*) as submits, count(*) filter (
        where symbol = $3 and side = $4 and type = $5 and volume = $7::numeric
            and price is not distinct from $8::numeric and stop_price is not distinct from $9::numeric
            and state <> 'DENIED' and submitted_at > statement_timestamp() - make_interval(secs => $10::float8)
    ) as twins
    from orders where tenant = $1 and account = $2 and submitted_at > statement_timestamp() - interval '60 s'
) lately
"""
_COLUMNS: Final = (*ASKED, *STANDS, "state", "denials")
_ADD: Final = (
    f"with new_order as (insert into orders ({', '.join(_COLUMNS)}) values"
    f" ({', '.join(f'${n}' for n in range(1, len(_COLUMNS) + 1))}) returning tenant, id, account, state, submitted_at,"
    " traceparent), told as (insert into order_events (tenant, order_id, seq, old_state, new_state, what, detail,"
    " traceparent, at) select tenant, id, 1, 'CREATED', state, case state when 'QUEUED' then 'order.submitted'"
    " else 'order.denied' end, $%d, traceparent, submitted_at from new_order),"
    % (len(_COLUMNS) + 1)
    + " noted as (insert into order_outbox (tenant, account, order_id, command, due_at)"
    " select tenant, account, id, 'send', submitted_at + interval '1 s' from new_order where state = 'QUEUED')"
    " select submitted_at from new_order"
)


class PostgresOrderDesk:
    """The `OrderDesk` port on PostgreSQL."""

    async def listing(self, work: PostgresWork, account: str, symbol: str) -> Listing:
        rows = await work.connection.fetch(_LISTING, work.tenant, account, symbol)
        if not rows:
            raise NotFound(f"there is no account {account!r}", code="ACCOUNT_NOT_FOUND")
        row = rows[0]
        return Listing(
            account=account_of(row) if row["venue"] != "none" else None,
            reachable=row["reachable"],
            instruments=tuple(
                Instrument(**{name: one[name] for name in INSTRUMENTS.fields})
                for one in rows
                if one["symbol"] is not None
            ),
        )

    async def facts(
        self, work: PostgresWork, order: Order, account: TradingAccount, window_ms: int
    ) -> DeskFacts:
        standing = await self.lock_account(work, account.id)
        row = await work.connection.fetchrow(
            _FACTS,
            work.tenant,
            order.account,
            order.symbol,
            order.side,
            order.type,
            instant(standing.viewed_at_ms),
            order.volume,
            order.price,
            order.stop_price,
            window_ms / 1_000,
            order.client_order_id,
            order.position,
        )
        return DeskFacts(
            now_ms=ms(row["now"]) or 0,
            standing=standing,
            exposure=Exposure(position=row["position"], working_buys=row["buys"], working_sells=row["sells"]),
            named=Exposure(
                position=row["named"], working_buys=row["named_buys"], working_sells=row["named_sells"]
            ),
            margin_moving=row["margin_moving"],
            notional_moving=row["notional_moving"],
            submits=row["submits"],
            twins=row["twins"],
            id_used=row["id_used"],
        )

    async def lock_account(self, work: PostgresWork, account: str) -> Standing:
        if account in work.standings:
            return work.standings[account]
        row = await work.connection.fetchrow(_LOCK, work.tenant, account)
        if row is None:
            # Its first order.
            await work.connection.execute(
                "insert into account_books (tenant, account) select tenant, id from accounts"
                " where tenant = $1 and id = $2 on conflict do nothing",
                work.tenant,
                account,
            )
            row = await work.connection.fetchrow(_LOCK, work.tenant, account)
        if row is None:
            raise NotFound(f"there is no account {account!r}", code="ACCOUNT_NOT_FOUND")
        work.standings[account] = standing_of(account_of(row), row)
        return work.standings[account]

    async def add(self, work: PostgresWork, entry: OrderEntry) -> OrderEntry:
        detail = {"denials": [denial.code for denial in entry.denials]}
        at = await work.connection.fetchval(_ADD, *values_of(entry), json_of(detail))
        at_ms = ms(at) or 0
        return replace(entry, order=replace(entry.order, submitted_at_ms=at_ms), updated_at_ms=at_ms)


def values_of(entry: OrderEntry) -> tuple[Any, ...]:
    """Return what is written of a new order, in the order of the columns."""
    asked = [getattr(entry.order, name) for name in ASKED]
    stands = [getattr(entry, name) for name in STANDS]
    return (*asked, *stands, entry.state, json_of(entry.denials))
