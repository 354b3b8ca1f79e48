"""Two paper venues at once on one account, each as a process of its own: no fill lost, none twice, nobody stuck."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

import pytest

from core.errors.exceptions import UnknownOutcome
from core.model.orders import Order, OrderState, OrderType, Side
from core.model.venues import VenueReport
from core.settings import Settings
from tests.engines import House, new_databases
from tests.paper_pits import LOT, FrozenQuotes, Pit, dealt, net, opened_pit
from tests.trading_floors import put_quote

WAITING_S_MAX: Final = 20.0
_S = OrderState


@pytest.fixture(scope="module")
def settings(house: House) -> Settings:
    return new_databases(house)


@pytest.fixture
async def pit(settings: Settings) -> AsyncIterator[Pit]:
    async with opened_pit(settings) as opened:
        yield opened


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
