"""The paper venue on real stores: two of them at once on the same account, each as a process of its own would be."""

import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final

import msgspec
import pytest
from ulid import ULID

from core.errors.exceptions import UnknownOutcome
from core.infrastructure.central_hub import Hub, open_hub
from core.model.orders import Order, OrderState, OrderType, Side
from core.model.venues import OrderChange, TradingAccount, VenueReport, VenueView
from core.settings import Settings
from core.trading.paper.book import PaperModels
from core.trading.paper.venue import PaperVenue
from tests.engines import House, new_databases
from tests.trading_floors import ASK, BID, INSTRUMENT, SYMBOL, account, keep_records, put_quote

NEEDS: Final = {"postgres", "latest_quotes", "paper_venue", "order_ledger"}
WAITING_S_MAX: Final = 20.0
LOT: Final = Decimal("0.01")
_S = OrderState


@pytest.fixture(scope="module")
def settings(house: House) -> Settings:
    return new_databases(house)


class FrozenQuotes:
    """Quotes of a Redis that has stopped answering."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def get(self, _source: str, _symbols: Sequence[str] | None) -> Mapping[str, bytes]:
        self.asked.set()
        await asyncio.Event().wait()
        return {}


class CountedQuotes:
    """Quotes that count how often they are asked for."""

    def __init__(self, quotes: Any) -> None:
        self._quotes = quotes
        self.asked: list[list[str]] = []

    async def get(self, source: str, symbols: Sequence[str] | None) -> Mapping[str, bytes]:
        self.asked.append(list(symbols or ()))
        found: Mapping[str, bytes] = await self._quotes.get(source, symbols)
        return found


@dataclass
class Pit:
    """One account, and two venues with connections of their own."""

    hubs: tuple[Hub, Hub]
    account: TradingAccount

    def venue(self, number: int = 0, **changes: Any) -> PaperVenue:
        venue: PaperVenue = self.hubs[number]["paper_venue"]
        return replace(venue, **changes, _turns={}) if changes else venue

    def order(self, side: Side = Side.BUY, volume: Decimal = LOT, **changes: Any) -> Order:
        fields = {"type": OrderType.MARKET, "symbol": SYMBOL, **changes}
        return Order(
            id=str(ULID()),
            tenant=self.account.tenant,
            account=self.account.id,
            side=side,
            volume=volume,
            **fields,
        )

    async def seen(self) -> VenueView:
        return await self.venue().view(self.account, 0)


@pytest.fixture
async def pit(settings: Settings) -> AsyncIterator[Pit]:
    name = uuid.uuid4().hex[:12]
    await keep_records(settings, "demo", {name: account()}, instrument=False)
    async with AsyncExitStack() as stack:
        hubs = [await stack.enter_async_context(open_hub(settings, NEEDS)) for _ in range(2)]
        async with hubs[0]["postgres"].acquire() as connection:
            await connection.execute(
                "insert into sources (name, tenant, token_hash) values ('demo', 'demo', repeat('0', 64))"
                " on conflict do nothing"
            )
            known = await connection.fetchval("select exists(select from instruments)")
        if not known:
            await keep_records(settings, "demo", {})
        await put_quote(settings)
        found = [one for one in await hubs[0]["order_ledger"].accounts() if one.id == name]
        yield Pit(hubs=(hubs[0], hubs[1]), account=found[0])


def net(view: VenueView) -> Decimal:
    return sum((one.side.sign * one.volume for one in view.positions), Decimal(0))


def dealt(view: VenueView) -> Decimal:
    return sum((one.side.sign * one.volume for one in view.deals), Decimal(0))


async def test_two_venues_on_one_account_fill_every_order_once(pit: Pit) -> None:
    chance = random.Random(7)
    orders = [
        pit.order(chance.choice(list(Side)), LOT * chance.randint(1, 9), type=kind, price=price)
        for kind, price in [(OrderType.MARKET, None), (OrderType.LIMIT, Decimal("1.1"))] * 20
    ]

    async def sent(number: int, order: Order) -> VenueReport:
        report = await pit.venue(number % 2).send(pit.account, order)
        await pit.venue(1 - number % 2).advance(pit.account)
        return report

    async with asyncio.timeout(WAITING_S_MAX):
        reports = await asyncio.gather(*(sent(number, order) for number, order in enumerate(orders)))
    view = await pit.seen()
    filled: Counter[str] = Counter()
    for deal in view.deals:
        filled[deal.tag] += int(deal.volume / LOT)
    at_the_market = {one.id for one in orders if one.type is OrderType.MARKET or one.side is Side.SELL}
    assert filled == {one.id: int(one.volume / LOT) for one in orders if one.id in at_the_market}
    assert {one.tag for one in view.orders} == {one.id for one in orders} - at_the_market
    assert len({one.ticket for one in view.deals}) == len(view.deals)
    assert len({one.order for one in reports}) == len(orders)
    assert net(view) == dealt(view)
    assert view.balance == pit.account.opening_balance + sum(deal.profit for deal in view.deals)


async def test_an_order_taken_back_here_while_it_is_filled_there_ends_once(
    pit: Pit, settings: Settings
) -> None:
    for _ in range(8):
        resting = pit.order(type=OrderType.LIMIT, price=Decimal("1.09"))
        taken = await pit.venue().send(pit.account, resting)
        assert taken.state is _S.ACCEPTED
        await put_quote(settings, 1.0898, 1.0899)
        async with asyncio.timeout(WAITING_S_MAX):
            report, *_ = await asyncio.gather(
                pit.venue(0).cancel(pit.account, taken.order),
                pit.venue(1).advance(pit.account),
                pit.venue(0).advance(pit.account),
            )
        await put_quote(settings)
        view = await pit.seen()
        deals = [deal for deal in view.deals if deal.tag == resting.id]
        assert report.state is (_S.FILLED if deals else _S.CANCELED)
        assert [one.state for one in view.ended if one.tag == resting.id] == [report.state]
        assert sum(deal.volume for deal in deals) == (LOT if deals else 0)


async def test_a_view_shows_one_moment_whatever_happens_meanwhile(pit: Pit) -> None:
    async def trade() -> None:
        for _ in range(30):
            await pit.venue(1).send(pit.account, pit.order())

    async with asyncio.timeout(WAITING_S_MAX), asyncio.TaskGroup() as group:
        trading = group.create_task(trade())
        while not trading.done():
            view = await pit.seen()
            assert net(view) == dealt(view)


async def test_quotes_that_do_not_come_keep_no_other_venue_waiting(pit: Pit) -> None:
    quotes = FrozenQuotes()
    stuck = asyncio.create_task(pit.venue(0, quotes=quotes).send(pit.account, pit.order()))
    await quotes.asked.wait()
    async with asyncio.timeout(WAITING_S_MAX):
        report = await pit.venue(1).send(pit.account, pit.order())
        assert report.state is _S.FILLED
        assert len((await pit.seen()).deals) == 1
    stuck.cancel()
    await asyncio.gather(stuck, return_exceptions=True)


@pytest.mark.parametrize("held", [0, 3])
async def test_a_market_order_is_two_messages_and_one_question_for_quotes(
    pit: Pit, settings: Settings, held: int
) -> None:
    others = [f"HELD{number}" for number in range(held)]
    for symbol in others:
        instrument = msgspec.structs.replace(INSTRUMENT, symbol=symbol)
        async with open_hub(settings, {"ledger_records"}) as hub:
            await hub["ledger_records"].create("instruments", "demo", symbol.lower(), instrument, version="1")
        quote = {"bid": BID, "ask": ASK, "utc_ms": int(time.time() * 1_000)}
        await pit.hubs[0]["latest_quotes"].put("demo", {symbol: msgspec.json.encode(quote)})
        report = await pit.venue().send(pit.account, pit.order(symbol=symbol))
        assert report.state is _S.FILLED
    await pit.venue().send(pit.account, pit.order())
    quotes, said = CountedQuotes(pit.hubs[0]["latest_quotes"]), list[str]()
    async with pit.hubs[0]["postgres"].pool.acquire() as connection:
        connection.add_query_logger(lambda query: said.append(query.query))
    assert (await pit.venue(0, quotes=quotes).send(pit.account, pit.order())).state is _S.FILLED
    assert len(said) == 2, said
    assert quotes.asked == [sorted([SYMBOL, *others])]


async def test_what_may_have_been_kept_is_an_unknown_outcome(pit: Pit) -> None:
    await pit.venue(1).send(pit.account, pit.order())
    postgres = pit.hubs[1]["postgres"]
    async with postgres.acquire() as holder, postgres.acquire() as watcher, holder.transaction():
        await holder.execute("select from paper_books where account = $1 for update", pit.account.id)
        sending = asyncio.create_task(pit.venue().send(pit.account, pit.order()))
        ended = 0
        async with asyncio.timeout(WAITING_S_MAX):
            while not ended:
                ended = await watcher.fetchval(
                    "select count(pg_terminate_backend(pid)) from pg_stat_activity"
                    " where datname = current_database() and wait_event_type = 'Lock'"
                )
        with pytest.raises(UnknownOutcome):
            await sending


async def test_what_was_read_too_long_ago_is_not_kept(pit: Pit) -> None:
    books = pit.venue().books
    nothing: dict[str, Any] = {"symbols": (), "busy": False, "deals": (), "ended": ()}
    page = await books.opened(pit.account)
    old = replace(page, at_ms=page.at_ms - 6_000)
    text = b'{"balance": "1"}'
    assert not await books.keep(pit.account, old, text, **nothing)
    assert await books.keep(pit.account, page, text, **nothing)
    assert not await books.keep(pit.account, page, text, **nothing)
    again = await books.opened(pit.account)
    assert (page.version, again.version) == (0, 1)
    assert not await books.keep(pit.account, replace(again, at_ms=old.at_ms), text, **nothing)


async def test_an_order_that_is_not_there_any_more_is_told_as_it_ended(pit: Pit) -> None:
    filled = await pit.venue().send(pit.account, pit.order())
    for report in (
        await pit.venue().cancel(pit.account, filled.order),
        await pit.venue().modify(pit.account, filled.order, OrderChange(price=Decimal(1))),
    ):
        assert (report.state, report.deals) == (_S.FILLED, filled.deals)
    unknown = await pit.venue().cancel(pit.account, "77")
    assert (unknown.state, unknown.code) == (_S.REJECTED, "ORDER_UNKNOWN")


async def test_profits_are_booked_in_the_accounts_currency(pit: Pit, settings: Settings) -> None:
    in_euros = replace(pit.account, currency="EUR")
    await pit.venue().send(in_euros, pit.order(volume=Decimal(1)))
    await put_quote(settings, 1.2, 1.2)
    await pit.venue().send(in_euros, pit.order(Side.SELL, Decimal(1)))
    # (1.2 - 1.1001) x 100,000 dollars, at 1.2 dollars a euro.
    assert (await pit.venue().view(in_euros, 0)).balance - in_euros.opening_balance == Decimal("8325.00")


async def test_an_account_of_the_same_name_elsewhere_has_a_book_of_its_own(pit: Pit) -> None:
    await pit.venue().send(pit.account, pit.order())
    theirs = replace(pit.account, tenant="rival")
    view = await pit.venue().view(theirs, 0)
    assert (view.deals, view.positions, view.balance) == ((), (), theirs.opening_balance)
    refused = await pit.venue().send(theirs, pit.order())
    # Neither the instrument nor the source is theirs.
    assert (refused.state, refused.code) == (_S.REJECTED, "SYMBOL_UNKNOWN")


async def test_lots_that_one_quote_fills_once_come_with_the_next(pit: Pit, settings: Settings) -> None:
    venue = pit.venue(models=PaperModels(lots_per_quote=LOT))
    report = await venue.send(pit.account, pit.order(volume=3 * LOT))
    for _ in range(3):
        await venue.advance(pit.account)
    assert (report.state, net(await pit.seen())) == (_S.PARTIALLY_FILLED, LOT)
    for step in (1, 2):
        await put_quote(settings, BID - step / 100_000, ASK)
        await venue.advance(pit.account)
    view = await pit.seen()
    assert (net(view), [one.state for one in view.ended]) == (3 * LOT, [_S.FILLED])
