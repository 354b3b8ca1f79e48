"""What the terminal shows becomes the house's words, and every tag is found that can be."""

from decimal import Decimal
from typing import Any

import pytest

from bridge.connector.terminal import AccountInfo
from bridge.connector.trade_view import SAME_TIME_MS, Eyes, Sent, Tags, number
from bridge.connector.trades import MadeDeal, OpenPosition, PlacedOrder, Reason, TradeType
from core.model.orders import OrderState, OrderType, Side

TAG = "01JD0000000000000000000000"
OTHER = "01JD0000000000000000000001"
AT_MS = 1_700_000_000_000
OFFSET_S = 10_800
SERVER_MS = AT_MS + OFFSET_S * 1_000


def eyes(*sent: Sent) -> Eyes:
    tags = Tags()
    for one in sent:
        tags.note(one)
    return Eyes(tags=tags, utc_offset_s=OFFSET_S)


def sent(**changes: Any) -> Sent:
    fields: dict[str, Any] = {
        "tag": TAG,
        "magic": 42,
        "symbol": "EURUSD",
        "side": Side.BUY,
        "at_ms": AT_MS,
    }
    return Sent(**{**fields, **changes})


def placed(**changes: Any) -> PlacedOrder:
    fields: dict[str, Any] = {
        "ticket": 5,
        "time_setup_msc": SERVER_MS,
        "type": TradeType.BUY_LIMIT,
        "state": 1,
        "magic": 42,
        "reason": Reason.EXPERT,
        "volume_initial": 0.3,
        "volume_current": 0.3,
        "price_open": 1.08,
        "symbol": "EURUSD",
        "comment": TAG,
    }
    return PlacedOrder(**{**fields, **changes})


def deal(**changes: Any) -> MadeDeal:
    fields: dict[str, Any] = {
        "ticket": 6,
        "order": 5,
        "time_msc": SERVER_MS,
        "type": TradeType.BUY,
        "magic": 42,
        "reason": Reason.EXPERT,
        "volume": 0.1 + 0.2,
        "price": 1.08,
        "symbol": "EURUSD",
        "comment": TAG,
    }
    return MadeDeal(**{**fields, **changes})


def tag_of(seen: Eyes, **changes: Any) -> str:
    found = seen.deal(deal(**changes))
    assert found is not None
    return found.tag


def test_the_comment_is_the_tag() -> None:
    assert tag_of(eyes()) == TAG


def test_where_the_comment_was_rewritten_the_ticket_tells() -> None:
    assert tag_of(eyes(sent(ticket=5)), comment="broker/7") == TAG


def test_where_no_answer_told_the_ticket_the_magic_number_does() -> None:
    assert tag_of(eyes(sent()), comment="broker/7") == TAG


@pytest.mark.parametrize(
    "changes",
    [
        {"magic": 43},
        {"magic": 0},
        {"symbol": "GBPUSD"},
        {"type": TradeType.SELL},
        {"time_msc": SERVER_MS + SAME_TIME_MS + 1},
    ],
    ids=["other magic", "no magic", "other symbol", "other side", "much later"],
)
def test_the_magic_number_alone_is_not_enough(changes: dict[str, Any]) -> None:
    assert tag_of(eyes(sent()), **{"comment": "", **changes}) == ""


def test_two_orders_of_one_strategy_are_not_guessed_apart() -> None:
    assert tag_of(eyes(sent(), sent(tag=OTHER)), comment="") == ""
    assert tag_of(eyes(sent(), sent(tag=OTHER, ticket=9)), comment="") == TAG


@pytest.mark.parametrize("reason", [Reason.STOP_LOSS, Reason.TAKE_PROFIT, Reason.STOP_OUT])
def test_what_the_venue_did_by_itself_is_no_order_of_ours(reason: Reason) -> None:
    assert tag_of(eyes(sent()), reason=reason) == ""


@pytest.mark.parametrize("comment", ["", "hello", "[sl 1.08]", TAG + "0"])
def test_other_peoples_comments_are_no_tags(comment: str) -> None:
    assert tag_of(eyes(), comment=comment) == ""


def test_what_is_forgotten_is_found_by_its_comment_only() -> None:
    seen = eyes(sent(ticket=5))
    seen.tags.forget([TAG])
    assert tag_of(seen, comment="broker/7") == ""
    assert tag_of(seen) == TAG


def test_bookings_are_no_deals() -> None:
    assert eyes().deal(deal(type=2)) is None


def test_times_are_utc_and_numbers_are_the_decimals_they_stand_for() -> None:
    found = eyes().deal(deal(commission=-0.1, fee=-0.2, profit=-12.30))
    assert found is not None
    assert (found.at_ms, found.volume) == (AT_MS, Decimal("0.3"))
    assert (found.commission, found.profit) == (Decimal("-0.3"), Decimal("-12.3"))


@pytest.mark.parametrize(
    ("value", "text"),
    [(100_000.0, "100000"), (1.08503, "1.08503"), (0.0, "0"), (-4e-11, "0"), (2330.1, "2330.1")],
)
def test_a_float_becomes_the_number_that_was_meant(value: float, text: str) -> None:
    assert f"{number(value):f}" == text


@pytest.mark.parametrize(
    ("state", "left", "working", "expected"),
    [
        (1, 0.3, True, OrderState.ACCEPTED),
        (0, 0.3, True, OrderState.ACCEPTED),
        (9, 0.3, True, OrderState.ACCEPTED),
        (3, 0.1, True, OrderState.PARTIALLY_FILLED),
        (1, 0.1, True, OrderState.PARTIALLY_FILLED),
        (2, 0.3, False, OrderState.CANCELED),
        (3, 0.1, False, OrderState.CANCELED),
        (4, 0.0, False, OrderState.FILLED),
        (5, 0.3, False, OrderState.REJECTED),
        (6, 0.3, False, OrderState.EXPIRED),
        (1, 0.3, False, OrderState.UNKNOWN),
        (77, 0.3, False, OrderState.UNKNOWN),
    ],
)
def test_states_are_translated(state: int, left: float, working: bool, expected: OrderState) -> None:
    found = eyes().order(placed(state=state, volume_current=left), working=working)
    assert found is not None
    assert found.state is expected


def test_a_stop_limits_two_prices_are_told_apart() -> None:
    kind = TradeType.SELL_STOP_LIMIT
    found = eyes().order(placed(type=kind, price_open=1.07, price_stoplimit=1.08), working=True)
    assert found is not None
    assert (found.type, found.side) == (OrderType.STOP_LIMIT, Side.SELL)
    assert (found.stop_price, found.price) == (Decimal("1.07"), Decimal("1.08"))


def test_closing_by_an_opposite_position_is_no_order_of_this_house() -> None:
    assert eyes().order(placed(type=TradeType.CLOSE_BY), working=False) is None


def test_a_view_has_deals_in_their_order() -> None:
    account = AccountInfo(login=1, server="s", balance=1_000.5, equity=999.5, margin=10.0, margin_free=989.5)
    held = OpenPosition(
        ticket=5, identifier=5, time_msc=SERVER_MS, type=0, volume=0.3, price_open=1.08, symbol="EURUSD"
    )
    view = eyes(sent(ticket=5)).view(
        account,
        orders=[placed()],
        ended=[placed(state=4)],
        deals=[deal(ticket=9, time_msc=SERVER_MS + 1), deal(ticket=8), deal(ticket=1, type=2)],
        positions=[held],
        at_ms=AT_MS,
    )
    assert [one.ticket for one in view.deals] == ["8", "9"]
    assert (view.balance, view.margin_free) == (Decimal("1000.5"), Decimal("989.5"))
    assert [one.tag for one in view.positions] == [TAG]
