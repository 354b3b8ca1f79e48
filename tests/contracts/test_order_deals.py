"""Deals, and what the ledger makes of them: each counts once, and positions are their sum."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings

from core.model.ledger import Fill, Holding
from core.model.orders import OrderState, Side
from core.model.venues import Deal, VenueReport
from core.settings import Settings
from core.trading.positions import applied
from core.trading.settling import Settlement
from tests.engines import House, new_databases
from tests.ledger_floors import OURS, PRICE, SHOWN_AT_MS, THEIRS, VOLUME, Books, opened_books
from tests.trading_floors import SYMBOL, account, keep_records

_S = OrderState
HALF = VOLUME / 2
CLOSE = Fraction(1, 10**15)
"""How far a price kept as a decimal may be from the exact one."""


@pytest.fixture(scope="module")
def settings(house: House) -> Settings:
    return new_databases(house)


@pytest.fixture
async def books(settings: Settings) -> AsyncIterator[Books]:
    async with opened_books(settings) as opened:
        yield opened


async def recorded(books: Books, *fills: Fill, tenant: str = OURS) -> Sequence[Fill]:
    async with books.work(tenant) as work:
        return await books.ledger.record_fills(work, fills)


# -- fills -----------------------------------------------------------------------------------------------


async def test_a_deal_that_is_told_again_is_no_news(books: Books) -> None:
    first, second = books.fill("1"), books.fill("2", profit=Decimal("1.23"), commission=Decimal("-0.1"))
    assert await recorded(books, first) == [first]
    assert await recorded(books, first, second, second) == [second]
    assert await recorded(books) == []
    where = {"account": books.name}
    assert await books.hub["trading_reads"].fills(OURS, after=None, limit=9, where=where) == [first, second]


async def test_deals_nobody_has_kept_are_told_apart_from_those_kept_on_the_account(books: Books) -> None:
    await recorded(books, books.fill("1"), replace(books.fill("2"), account=f"{books.name}-b"))
    await recorded(books, books.fill("3"), tenant=THEIRS)
    deals = [deal("3"), deal("1"), deal("2")]
    async with books.work() as work:
        assert await books.ledger.unrecorded(work, books.name, deals) == [deals[0], deals[2]]
        assert await books.ledger.unrecorded(work, books.name, []) == []


async def test_of_two_who_record_a_deal_at_once_one_is_told_that_it_is_new(books: Books) -> None:
    fills = [books.fill(str(number)) for number in range(10)]
    found = await asyncio.gather(*(recorded(books, *fills) for _ in range(4)))
    assert [one for fresh in found for one in fresh] == fills


async def test_a_ticket_of_another_account_or_tenant_is_another_deal(books: Books) -> None:
    fill = books.fill("1")
    other = replace(fill, account=f"{books.name}-b")
    assert await recorded(books, fill, other) == [fill, other]
    assert await recorded(books, fill, tenant=THEIRS) == [fill]


async def test_an_orders_fills_make_its_volume_and_average_price(books: Books) -> None:
    mine, other = (await books.kept()).order.id, (await books.kept()).order.id
    fills = [
        books.fill("1", mine, volume=Decimal("0.03"), price=Decimal("1.1")),
        books.fill("2", mine, volume=Decimal("0.06"), price=Decimal("1.4")),
        books.fill("3", other, volume=Decimal(5)),
        books.fill("4"),
    ]
    await recorded(books, *fills)
    async with books.work() as work:
        assert await books.ledger.filled(work, mine) == (Decimal("0.09"), Decimal("1.3"))
        assert await books.ledger.filled(work, (await books.kept()).order.id) == (0, None)
    async with books.work(THEIRS) as work:
        assert await books.ledger.filled(work, mine) == (0, None)


# -- positions -------------------------------------------------------------------------------------------


def holding(books: Books, ticket: str, **changes: object) -> Holding:
    made = applied([], [books.fill("1", position=ticket)], hedging=True)[0]
    return replace(made, stop_loss=Decimal("1.05"), **changes)


async def test_positions_are_exactly_those_that_were_last_held(books: Books) -> None:
    first, second, third = (holding(books, ticket) for ticket in ("1", "2", "3"))
    async with books.work() as work:
        assert await books.ledger.holdings(work, books.name) == []
        await books.ledger.hold(work, books.name, [second, first])
        assert await books.ledger.holdings(work, books.name) == [first, second]
        grown = replace(second, volume=Decimal(9), side=Side.SELL, take_profit=Decimal(2), stop_loss=None)
        await books.ledger.hold(work, books.name, [grown, third])
        assert await books.ledger.holdings(work, books.name) == [grown, third]
    assert await books.hub["trading_reads"].positions(OURS, books.name) == [grown, third]


async def test_positions_of_another_account_stay(books: Books) -> None:
    mine, other = holding(books, "1"), holding(books, "1", account=f"{books.name}-b")
    async with books.work(THEIRS) as work:
        await books.ledger.hold(work, books.name, [mine])
    async with books.work() as work:
        await books.ledger.hold(work, books.name, [mine])
        await books.ledger.hold(work, other.account, [other])
        await books.ledger.hold(work, books.name, [])
        assert await books.ledger.holdings(work, books.name) == []
        assert await books.ledger.holdings(work, other.account) == [other]
    async with books.work(THEIRS) as work:
        assert await books.ledger.holdings(work, books.name) == [mine]


# -- what a venue's deals do to orders and positions -----------------------------------------------------


def settlement(books: Books) -> Settlement:
    return Settlement(ledger=books.ledger, audit=books.hub["audit"])


def deal(ticket: str, tag: str = "", **changes: object) -> Deal:
    fields = {"position": "1", "side": Side.BUY, "volume": HALF, "price": PRICE, **changes}
    return Deal(ticket=ticket, tag=tag, order="7", symbol=SYMBOL, at_ms=SHOWN_AT_MS, **fields)


async def test_a_cancelled_order_is_filled_by_deals_that_come_late_and_twice(books: Books) -> None:
    entry = await books.walked(_S.SENDING, _S.ACCEPTED, _S.PENDING_CANCEL, _S.CANCELED)
    report = VenueReport(state=_S.ACCEPTED, order="7")
    states = []
    for deals in [(deal("1", entry.order.id),), (deal("1", entry.order.id), deal("2", entry.order.id))] * 2:
        async with books.work() as work:
            entry = await books.ledger.locked(work, entry.order.id)
            late = replace(report, deals=deals)
            entry = await settlement(books).settle(work, entry, late, what="order.filled_after_end")
            states.append((entry.state, entry.filled_volume))
    assert states == [
        (_S.PARTIALLY_FILLED, HALF),
        (_S.FILLED, VOLUME),
        (_S.FILLED, VOLUME),
        (_S.FILLED, VOLUME),
    ]
    async with books.work() as work:
        (held,) = await books.ledger.holdings(work, books.name)
    assert (held.volume, held.price_open, held.order) == (VOLUME, PRICE, entry.order.id)


# -- any sequence of deals -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dealt:
    """A deal: its symbol and ticket by number, lots in hundredths and the price in ticks. again: told once more."""

    side: Side
    symbol: int
    ticket: int
    lots: int
    ticks: int
    again: bool

    def fill(self, name: str, number: int) -> Fill:
        return Fill(
            account=name,
            deal=str(number),
            order=None,
            venue_order=str(number),
            # A position's ticket is of one symbol.
            position=f"{self.symbol}{self.ticket}",
            symbol=f"S{self.symbol}",
            side=self.side,
            volume=Decimal(self.lots) / 100,
            price=Decimal(self.ticks) / 100_000,
            profit=Decimal(0),
            commission=Decimal(0),
            at_ms=SHOWN_AT_MS + number,
        )


DEALS = st.lists(
    st.builds(
        Dealt,
        side=st.sampled_from(Side),
        symbol=st.integers(0, 1),
        ticket=st.integers(0, 2),
        # Few volumes, so that positions often end exactly and turn.
        lots=st.sampled_from([1, 2, 3, 7]),
        ticks=st.integers(90_000, 130_000),
        again=st.booleans(),
    ),
    max_size=30,
)


def held_by(fills: Iterable[Fill], *, hedging: bool) -> dict[str, tuple[Fraction, Fraction]]:
    """Return signed volume and average price of each position, exactly, from the lots still in it.

    What makes a position smaller takes of all its lots alike, so that their average stays; what is left over when it is
    gone opens the next.
    """
    held: dict[str, tuple[Fraction, Fraction]] = defaultdict(lambda: (Fraction(0), Fraction(0)))
    for fill in fills:
        key = fill.position if hedging else fill.symbol
        net, cost = held[key]
        signed, price = fill.side.sign * Fraction(fill.volume), Fraction(fill.price)
        if net * signed >= 0:
            held[key] = (net + signed, cost + signed * price)
        elif abs(signed) <= abs(net):
            held[key] = (net + signed, cost * (net + signed) / net)
        else:
            held[key] = (net + signed, (net + signed) * price)
    return {key: (net, cost / net) for key, (net, cost) in held.items() if net}


def check(holdings: Sequence[Holding], fills: Sequence[Fill], *, hedging: bool) -> None:
    expected = held_by(fills, hedging=hedging)
    found = {one.ticket if hedging else one.symbol: one for one in holdings}
    assert len(found) == len(holdings)
    assert {key: one.side.sign * Fraction(one.volume) for key, one in found.items()} == {
        key: net for key, (net, _) in expected.items()
    }
    for key, (_, price) in expected.items():
        assert abs(Fraction(found[key].price_open) - price) < CLOSE
    for symbol in {fill.symbol for fill in fills}:
        assert sum(fill.side.sign * fill.volume for fill in fills if fill.symbol == symbol) == sum(
            one.side.sign * one.volume for one in holdings if one.symbol == symbol
        )


@pytest.mark.parametrize("hedging", [False, True])
@given(dealt=DEALS)
@hypothesis_settings(max_examples=300, deadline=None)
def test_positions_are_the_sum_of_any_deals_at_the_average_of_what_is_left(
    hedging: bool, dealt: list[Dealt]
) -> None:
    fills = [one.fill("a", number) for number, one in enumerate(dealt)]
    check(applied([], fills, hedging=hedging), fills, hedging=hedging)


@pytest.mark.parametrize("hedging", [False, True])
def test_the_ledger_holds_the_sum_of_any_deals_however_often_they_are_told(
    settings: Settings, hedging: bool
) -> None:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        books = runner.run(stack.enter_async_context(opened_books(settings)))

        async def told(name: str, dealt: list[Dealt]) -> None:
            mode = "hedging" if hedging else "netting"
            await keep_records(settings, OURS, {name: account(margin_mode=mode)}, instrument=False)
            fills = [one.fill(name, number) for number, one in enumerate(dealt)]
            for number, one in enumerate(dealt):
                deals = [_deal_of(fills[number])] * (2 if one.again else 1) + [_deal_of(fills[0])]
                async with books.work() as work:
                    await settlement(books).record(work, name, deals, {})
            async with books.work() as work:
                check(await books.ledger.holdings(work, name), fills, hedging=hedging)

        examples = iter(range(1_000))

        @given(dealt=DEALS)
        @hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
        def any_deals(dealt: list[Dealt]) -> None:
            runner.run(told(f"{books.name}-{next(examples)}", dealt))

        try:
            any_deals()
        finally:
            runner.run(stack.aclose())


def _deal_of(fill: Fill) -> Deal:
    return Deal(
        ticket=fill.deal,
        tag="",
        order=fill.venue_order,
        position=fill.position,
        symbol=fill.symbol,
        side=fill.side,
        volume=fill.volume,
        price=fill.price,
        at_ms=fill.at_ms,
    )
