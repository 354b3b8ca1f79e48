"""The paper book: every trigger by a table, and by a machine that whatever happens the sums are right."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from core.model.orders import OrderState, OrderType, Side, TimeInForce
from core.model.risk import InstrumentTerms, QuoteSeen
from core.trading.paper.book import Floor, Happened, PaperBook, PaperModels, PaperOrder
from core.trading.paper.fills import DAY_MS, due_ms, step

SYMBOL, NOW_MS, BALANCE = "EURUSD", 1_790_000_000_000, Decimal(100_000)
TERMS = InstrumentTerms(
    tradable=True,
    session_open=True,
    tick_size=Decimal("0.00001"),
    contract_size=Decimal(100_000),
    volume_min=Decimal("0.01"),
    volume_max=Decimal(100),
    volume_step=Decimal("0.01"),
)


def floor(bid: str = "1.1", ask: str = "1.1001", *, at_ms: int = NOW_MS, age_ms: int = 0) -> Floor:
    quote = QuoteSeen(bid=Decimal(bid), ask=Decimal(ask), time_ms=at_ms - age_ms)
    return Floor(at_ms=at_ms, quotes={SYMBOL: quote}, terms={SYMBOL: TERMS}, rates={SYMBOL: Decimal(1)})


def order(book: PaperBook, **changes: Any) -> PaperOrder:
    fields: dict[str, Any] = {
        "ticket": book.ticket(),
        "tag": f"tag{book.next_ticket}",
        "symbol": SYMBOL,
        "side": Side.BUY,
        "type": OrderType.MARKET,
        "time_in_force": TimeInForce.GTC,
        "volume": Decimal(1),
        "price": None,
        "stop_price": None,
        "stop_loss": None,
        "take_profit": None,
        "expires_at_ms": None,
        "position": "",
        "reduce_only": False,
        "due_ms": NOW_MS,
        "at_ms": NOW_MS,
    }
    wished = {**fields, **changes}
    placed = PaperOrder(left=wished["volume"], **wished)
    book.orders.append(placed)
    return placed


def after(
    *, hedging: bool = False, models: PaperModels | None = None, at: Floor | None = None, **changes: Any
) -> tuple[PaperBook, Happened]:
    book = PaperBook(balance=BALANCE)
    order(book, **changes)
    return book, step(book, at or floor(), models or PaperModels(), hedging=hedging)


LIMIT, STOP, STOP_LIMIT = OrderType.LIMIT, OrderType.STOP, OrderType.STOP_LIMIT
SELL = Side.SELL


@pytest.mark.parametrize(
    ("wish", "price"),
    [
        ({}, "1.1001"),
        ({"side": SELL}, "1.1"),
        ({"type": LIMIT, "price": Decimal("1.1001")}, "1.1001"),
        ({"type": LIMIT, "price": Decimal("1.2")}, "1.1001"),
        ({"type": LIMIT, "price": Decimal("1.10009")}, None),
        ({"type": LIMIT, "side": SELL, "price": Decimal("1.1")}, "1.1"),
        ({"type": LIMIT, "side": SELL, "price": Decimal("1.10001")}, None),
        ({"type": STOP, "stop_price": Decimal("1.1001")}, "1.1001"),
        ({"type": STOP, "stop_price": Decimal("1.09")}, "1.1001"),
        ({"type": STOP, "stop_price": Decimal("1.10011")}, None),
        ({"type": STOP, "side": SELL, "stop_price": Decimal("1.1")}, "1.1"),
        ({"type": STOP, "side": SELL, "stop_price": Decimal("1.2")}, "1.1"),
        ({"type": STOP, "side": SELL, "stop_price": Decimal("1.0999")}, None),
        ({"type": STOP_LIMIT, "stop_price": Decimal("1.1"), "price": Decimal("1.1002")}, "1.1001"),
        ({"type": STOP_LIMIT, "stop_price": Decimal("1.1"), "price": Decimal("1.1")}, None),
        ({"type": STOP_LIMIT, "stop_price": Decimal("1.2"), "price": Decimal("1.3")}, None),
    ],
)
def test_an_order_meets_the_quote_at_its_price_or_waits(wish: dict[str, Any], price: str | None) -> None:
    book, happened = after(**wish)
    assert [deal.price for deal in happened.deals] == ([] if price is None else [Decimal(price)])
    assert len(book.orders) == (price is None)


@pytest.mark.parametrize(
    ("wish", "lots", "state", "filled"),
    [
        ({"time_in_force": TimeInForce.IOC}, "0.4", OrderState.CANCELED, "0.4"),
        ({"time_in_force": TimeInForce.FOK}, "0.4", OrderState.CANCELED, "0"),
        ({"time_in_force": TimeInForce.FOK}, "1", OrderState.FILLED, "1"),
        (
            {"time_in_force": TimeInForce.IOC, "type": LIMIT, "price": Decimal(1)},
            "1",
            OrderState.CANCELED,
            "0",
        ),
    ],
)
def test_what_is_for_now_never_rests(wish: dict[str, Any], lots: str, state: OrderState, filled: str) -> None:
    book, happened = after(models=PaperModels(lots_per_quote=Decimal(lots)), **wish)
    assert book.orders == []
    assert [one.state for one in happened.ended] == [state]
    assert sum(deal.volume for deal in happened.deals) == Decimal(filled)


@pytest.mark.parametrize(
    ("wish", "later_ms", "ended"),
    [
        ({"time_in_force": TimeInForce.GTD, "expires_at_ms": NOW_MS + 10}, 9, False),
        ({"time_in_force": TimeInForce.GTD, "expires_at_ms": NOW_MS + 10}, 10, True),
        ({"time_in_force": TimeInForce.DAY}, DAY_MS, True),
        ({}, 400 * DAY_MS, False),
    ],
)
def test_an_order_lives_as_long_as_it_was_told(wish: dict[str, Any], later_ms: int, ended: bool) -> None:
    at = floor(at_ms=NOW_MS + later_ms)
    _book, happened = after(at=at, type=LIMIT, price=Decimal(1), **wish)
    assert [one.state for one in happened.ended] == ([OrderState.EXPIRED] if ended else [])


def test_an_order_meets_no_quote_before_its_latency_is_over() -> None:
    assert after(due_ms=NOW_MS + 1)[1].deals == []


def test_an_old_quote_fills_nothing() -> None:
    assert after(at=floor(age_ms=60_001))[1].deals == []


def test_slippage_is_never_in_ones_favour_and_always_the_same() -> None:
    models = PaperModels(slippage_ticks=7, seed=3)
    prices = {after(models=models, tag=f"t{number}")[1].deals[0].price for number in range(50)}
    assert prices <= {Decimal("1.1001") + ticks * TERMS.tick_size for ticks in range(8)}
    assert len(prices) > 3
    assert (
        after(models=models, tag="t1")[1].deals[0].price == after(models=models, tag="t1")[1].deals[0].price
    )


def test_latency_is_drawn_between_its_bounds_and_always_the_same() -> None:
    models = PaperModels(latency_ms=20, latency_spread_ms=7, seed=3)
    drawn = [due_ms(models, f"t{number}", NOW_MS) - NOW_MS for number in range(100)]
    assert set(drawn) == set(range(20, 28))
    assert drawn == [due_ms(models, f"t{number}", NOW_MS) - NOW_MS for number in range(100)]
    assert drawn != [due_ms(replace(models, seed=4), f"t{number}", NOW_MS) - NOW_MS for number in range(100)]


def test_a_quote_fills_its_lots_of_an_order_once() -> None:
    models = PaperModels(lots_per_quote=Decimal("0.4"))
    book, _ = after(models=models)
    assert step(book, floor(), models, hedging=False).deals == []
    assert [deal.volume for deal in step(book, floor(at_ms=NOW_MS + 1), models, hedging=False).deals] == [
        Decimal("0.4")
    ]


@pytest.mark.parametrize(
    ("levels", "bid", "closed"),
    [
        ({"stop_loss": Decimal("1.09")}, "1.0901", False),
        ({"stop_loss": Decimal("1.09")}, "1.09", True),
        ({"stop_loss": Decimal("1.09")}, "1.05", True),
        ({"take_profit": Decimal("1.2")}, "1.1999", False),
        ({"take_profit": Decimal("1.2")}, "1.2", True),
    ],
)
def test_a_position_is_closed_at_its_levels_and_no_order_is_behind_it(
    levels: dict[str, Any], bid: str, closed: bool
) -> None:
    book, _ = after(**levels)
    happened = step(book, floor(bid, str(Decimal(bid) + Decimal("0.0001"))), PaperModels(), hedging=False)
    assert [(deal.price, deal.tag) for deal in happened.deals] == ([(Decimal(bid), "")] if closed else [])
    assert len(book.positions) == (not closed)


def test_an_opposite_deal_turns_a_netting_position_under_its_ticket() -> None:
    book, _ = after(volume=Decimal(1))
    ticket = book.positions[0].ticket
    order(book, side=SELL, volume=Decimal(3))
    (deal,) = step(book, floor("1.2", "1.2001"), PaperModels(), hedging=False).deals
    assert deal.profit == (Decimal("1.2") - Decimal("1.1001")) * 100_000
    (held,) = book.positions
    assert (held.ticket, held.side, held.volume, held.price_open) == (
        ticket,
        SELL,
        Decimal(2),
        Decimal("1.2"),
    )


def test_hedging_positions_are_closed_by_their_ticket_alone() -> None:
    book, _ = after(hedging=True)
    order(book, side=SELL)
    step(book, floor(), PaperModels(), hedging=True)
    assert len(book.positions) == 2
    order(book, side=SELL, position=book.positions[0].ticket)
    step(book, floor(), PaperModels(), hedging=True)
    assert [held.side for held in book.positions] == [SELL]


def test_an_order_that_closes_a_position_opens_none_when_that_is_gone() -> None:
    book, _ = after(hedging=True, volume=Decimal(1), stop_loss=Decimal("1.05"))
    closing = {"side": SELL, "position": book.positions[0].ticket, "reduce_only": True}
    order(book, volume=Decimal(2), type=LIMIT, price=Decimal("1.2"), **closing)
    happened = step(book, floor("1.04", "1.0401"), PaperModels(), hedging=True)
    assert [(deal.tag, deal.volume) for deal in happened.deals] == [("", Decimal(1))]
    assert (book.positions, book.orders) == ([], [])
    assert [one.state for one in happened.ended] == [OrderState.CANCELED]


def test_reduce_only_never_opens_nor_turns() -> None:
    _book, happened = after(reduce_only=True)
    assert (happened.deals, [one.state for one in happened.ended]) == ([], [OrderState.CANCELED])
    book, _ = after(volume=Decimal(1))
    order(book, side=SELL, volume=Decimal(3), reduce_only=True)
    (deal,) = step(book, floor(), PaperModels(), hedging=False).deals
    assert deal.volume == 1
    assert book.positions == []


class BookMachine(RuleBasedStateMachine):
    """Orders and quotes in any order, on a netting or a hedging account."""

    def __init__(self) -> None:
        super().__init__()
        self.book = PaperBook(balance=BALANCE)
        self.orders: list[PaperOrder] = []
        self.deals: list[Any] = []
        self.models = PaperModels(lots_per_quote=Decimal("0.7"), slippage_ticks=2)
        self.hedging = False
        self.bid = Decimal("1.1")

    @precondition(lambda self: not self.orders)
    @rule()
    def hedge(self) -> None:
        self.hedging = True

    @rule(
        side=st.sampled_from(Side),
        type_=st.sampled_from(OrderType),
        force=st.sampled_from([TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK]),
        volume=st.decimals("0.01", "2", places=2),
        offset=st.integers(-30, 30),
        guarded=st.booleans(),
        reduce=st.booleans(),
        closing=st.booleans(),
    )
    def place(
        self, side: Side, type_: OrderType, force: TimeInForce, volume: Decimal, offset: int, **flags: bool
    ) -> None:
        price = self.bid + offset * Decimal("0.0001")
        has_price = type_ in {OrderType.LIMIT, OrderType.STOP_LIMIT}
        has_stop = type_ in {OrderType.STOP, OrderType.STOP_LIMIT}
        held = self.book.positions
        placed = order(
            self.book,
            side=side,
            type=type_,
            time_in_force=force,
            volume=volume,
            price=price if has_price else None,
            stop_price=price if has_stop else None,
            stop_loss=self.bid - side.sign * Decimal("0.002") if flags["guarded"] else None,
            take_profit=self.bid + side.sign * Decimal("0.002") if flags["guarded"] else None,
            reduce_only=flags["reduce"],
            position=held[0].ticket if held and flags["closing"] and self.hedging else "",
        )
        self.orders.append(placed)

    @rule(moved=st.integers(-25, 25))
    def quote(self, moved: int) -> None:
        self.bid += moved * Decimal("0.0001")
        happened = step(
            self.book,
            floor(str(self.bid), str(self.bid + Decimal("0.0001"))),
            self.models,
            hedging=self.hedging,
        )
        self.deals += happened.deals
        for placed in self.orders:
            filled = sum(deal.volume for deal in happened.deals if deal.tag == placed.tag)
            assert filled <= Decimal("0.7"), "no quote fills more than it may"
            if placed.time_in_force is TimeInForce.FOK:
                assert filled in {0, placed.volume}
            if placed.time_in_force is not TimeInForce.GTC:
                assert placed not in self.book.orders

    @invariant()
    def sums_are_right(self) -> None:
        signed = sum(deal.side.sign * deal.volume for deal in self.deals)
        held = sum(one.side.sign * one.volume for one in self.book.positions)
        assert signed == held
        assert self.book.balance == BALANCE + sum(deal.profit for deal in self.deals)
        assert all(one.volume > 0 for one in self.book.positions)
        if not self.hedging:
            assert len(self.book.positions) <= 1
        for placed in self.orders:
            assert sum(d.volume for d in self.deals if d.tag == placed.tag) == placed.volume - placed.left
            for deal in self.deals:
                if deal.tag == placed.tag and placed.price is not None:
                    assert (placed.price - deal.price) * placed.side.sign >= 0, "worse than its limit"


TestBook = BookMachine.TestCase
TestBook.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
