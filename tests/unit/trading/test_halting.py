"""Which orders may stay while positions are only to become smaller."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.model.ledger import Holding, OrderEntry
from core.model.orders import OrderState, Side
from core.model.risk import Restriction, SwitchScope, TradingState
from core.trading.halting import TAKEN_BACK, covers, growing
from tests.orders import make_order

_S = OrderState
STOPPABLE = [*TAKEN_BACK, _S.QUEUED]


def entry(name: str, side: Side, lots: str, state: OrderState = _S.ACCEPTED, filled: str = "0") -> OrderEntry:
    order = make_order(id=name, side=side, volume=Decimal(lots))
    return OrderEntry(order=order, state=state, version=1, filled_volume=Decimal(filled))


def held(side: Side, lots: str, symbol: str = "EURUSD") -> Holding:
    return Holding(
        account="a1",
        ticket="1",
        symbol=symbol,
        side=side,
        volume=Decimal(lots),
        price_open=Decimal("1.1"),
        stop_loss=None,
        take_profit=None,
        order="",
        opened_at_ms=0,
    )


def stopped(*entries: OrderEntry, holding: Holding | None = None) -> set[str]:
    held_now = [] if holding is None else [holding]
    return set(growing(entries, held_now, [one.order.id for one in entries], hedging=False))


def test_where_nothing_is_held_every_order_would_open_something() -> None:
    assert stopped(entry("a", Side.BUY, "1"), entry("b", Side.SELL, "1")) == {"a", "b"}


def test_what_closes_exactly_all_of_it_stays() -> None:
    assert stopped(entry("a", Side.SELL, "1"), holding=held(Side.BUY, "1")) == set()
    assert stopped(entry("a", Side.BUY, "1"), holding=held(Side.SELL, "1")) == set()


def test_what_would_turn_it_goes() -> None:
    assert stopped(entry("a", Side.SELL, "1.01"), holding=held(Side.BUY, "1")) == {"a"}


def test_a_position_of_another_symbol_makes_no_room() -> None:
    assert stopped(entry("a", Side.SELL, "1"), holding=held(Side.BUY, "1", "GBPUSD")) == {"a"}


def test_only_what_is_not_filled_yet_counts() -> None:
    assert stopped(entry("a", Side.SELL, "3", filled="2"), holding=held(Side.BUY, "1")) == set()


def test_of_two_that_fit_alone_the_older_stays() -> None:
    assert stopped(entry("a", Side.SELL, "1"), entry("b", Side.SELL, "1"), holding=held(Side.BUY, "1")) == {
        "b"
    }


def test_what_is_being_sent_comes_before_what_is_older() -> None:
    older, sending = entry("a", Side.SELL, "1"), entry("b", Side.SELL, "1", _S.SENDING)
    assert "a" in stopped(older, sending, holding=held(Side.BUY, "1"))


def test_what_is_being_taken_back_takes_nobodys_place() -> None:
    going, stays = entry("a", Side.SELL, "1", _S.PENDING_CANCEL), entry("b", Side.SELL, "1")
    assert stopped(going, stays, holding=held(Side.BUY, "1")) == set()


def test_an_order_that_is_not_covered_is_never_named() -> None:
    mine, others = entry("a", Side.SELL, "1"), entry("b", Side.SELL, "1")
    assert growing([mine, others], [held(Side.BUY, "1")], ["a"], hedging=False) == {"a"}


def test_on_a_hedging_account_an_order_makes_smaller_what_it_names_and_nothing_else() -> None:
    legs = [held(Side.BUY, "1"), replace(held(Side.SELL, "1"), ticket="2")]
    closes = naming("1", entry("a", Side.SELL, "1"))
    again = naming("1", entry("b", Side.SELL, "1"))
    beside = entry("c", Side.SELL, "1")
    grows = naming("2", entry("d", Side.SELL, "1"))
    entries = [closes, again, beside, grows]
    assert growing(entries, legs, ["a", "b", "c", "d"], hedging=True) == {"b", "c", "d"}


def naming(ticket: str, one: OrderEntry) -> OrderEntry:
    return replace(one, order=replace(one.order, position=ticket))


ORDERS = st.lists(st.tuples(st.sampled_from(Side), st.integers(1, 9), st.sampled_from(STOPPABLE)), max_size=8)


@given(ORDERS, st.sampled_from(Side), st.integers(0, 20))
def test_whatever_of_the_rest_is_filled_no_position_grows_or_turns(
    orders: list[tuple[Side, int, OrderState]], side: Side, lots: int
) -> None:
    entries = [entry(f"{n:02}", way, str(size), state) for n, (way, size, state) in enumerate(orders)]
    gone = stopped(*entries, holding=held(side, str(lots)) if lots else None)
    left = [one.order for one in entries if one.order.id not in gone]
    assert all(order.side is not side for order in left)
    assert sum(order.volume for order in left) <= lots


COVERED = [
    (SwitchScope.GLOBAL, "", True),
    (SwitchScope.TENANT, "", True),
    (SwitchScope.ACCOUNT, "a1", True),
    (SwitchScope.ACCOUNT, "a2", False),
    (SwitchScope.STRATEGY, "s", True),
    (SwitchScope.STRATEGY, "a1", False),
]


@pytest.mark.parametrize(("scope", "target", "expected"), COVERED)
def test_a_restriction_covers_what_it_names(scope: SwitchScope, target: str, expected: bool) -> None:
    one = Restriction(tenant="t", scope=scope, target=target, state=TradingState.HALTED)
    assert covers(one, "a1", "s") is expected
