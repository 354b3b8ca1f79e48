"""The paper venue on real stores: what an order costs, what quotes do to it, whose book it is in."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal

import msgspec
import pytest

from core.infrastructure.central_hub import open_hub
from core.model.orders import OrderState, OrderType, Side
from core.model.venues import OrderChange
from core.settings import Settings
from core.trading.paper.book import PaperModels
from tests.engines import House, new_databases
from tests.paper_pits import LOT, CountedQuotes, Pit, net, opened_pit
from tests.trading_floors import ASK, BID, INSTRUMENT, SYMBOL, put_quote

_S = OrderState


@pytest.fixture(scope="module")
def settings(house: House) -> Settings:
    return new_databases(house)


@pytest.fixture
async def pit(settings: Settings) -> AsyncIterator[Pit]:
    async with opened_pit(settings) as opened:
        yield opened


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


async def test_only_accounts_that_a_quote_can_change_are_looked_at(pit: Pit, settings: Settings) -> None:
    async def is_busy() -> bool:
        return pit.account in await pit.venue().books.busy()

    resting = await pit.venue().send(pit.account, pit.order(type=OrderType.LIMIT, price=Decimal("1.05")))
    assert await is_busy()
    await pit.venue().cancel(pit.account, resting.order)
    await pit.venue().send(pit.account, pit.order())
    assert not await is_busy()
    await pit.venue().send(pit.account, pit.order(stop_loss=Decimal("1.09")))
    assert await is_busy()
    await put_quote(settings, 1.0899, 1.09)
    # Both look at it at once, and it is closed once.
    await asyncio.gather(*(pit.venue(number).advance_all() for number in (0, 1)))
    view = await pit.seen()
    assert (net(view), [deal.tag for deal in view.deals if deal.side is Side.SELL]) == (0, [""])
    assert not await is_busy()


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
