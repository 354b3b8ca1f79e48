"""An order becomes the request that means it, or none."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.connector.terminal import AccountInfo, Quote, SymbolInfo
from bridge.connector.trade_requests import (
    Facts,
    levels_request,
    magic_of,
    modify_request,
    remove_request,
    send_requests,
    ticket_of,
)
from bridge.connector.trades import REQUEST_KEYS, Execution, Filling, OpenPosition, PlacedOrder, TradeType
from core.errors.exceptions import Invalid
from core.model.orders import Order, OrderType, Side, TimeInForce
from core.model.ticks import UTC_OFFSET_UNKNOWN
from core.model.venues import OrderChange

TAG = "01JD0000000000000000000000"
SYMBOL = SymbolInfo(
    name="EURUSD",
    digits=5,
    filling_mode=3,
    expiration_mode=15,
    trade_exemode=Execution.MARKET,
    trade_tick_size=1e-05,
    volume_min=0.01,
    volume_max=50.0,
    volume_step=0.01,
)
QUOTE = Quote(time=0, bid=1.0850, ask=1.0851, last=0.0, volume=0, time_msc=0, flags=6, volume_real=0.0)
LONG = OpenPosition(ticket=77, time_msc=0, type=TradeType.BUY, volume=0.5, price_open=1.08, symbol="EURUSD")


def order(**changes: Any) -> Order:
    fields: dict[str, Any] = {
        "id": TAG,
        "tenant": "demo",
        "account": "a1",
        "symbol": "EURUSD",
        "side": Side.BUY,
        "type": OrderType.MARKET,
        "volume": Decimal("0.10"),
    }
    return Order(**{**fields, **changes})


def facts(hedging: bool = False, offset_s: int = 10_800, positions: tuple = (), **symbol: Any) -> Facts:
    return Facts(
        account=AccountInfo(login=1, server="s", margin_mode=2 if hedging else 0),
        symbol=msgspec.structs.replace(SYMBOL, **symbol),
        quote=QUOTE,
        positions=positions,
        utc_offset_s=offset_s,
    )


def refusal(asked: Order, seen: Facts) -> str:
    with pytest.raises(Invalid) as error:
        send_requests(asked, seen, 20)
    return error.value.code


def test_a_market_order_is_a_deal_at_the_quote_with_tag_magic_and_deviation() -> None:
    request = send_requests(order(magic=7, stop_loss=Decimal("1.08")), facts(), 20)[0]
    assert request == {
        "action": 1,
        "symbol": "EURUSD",
        "volume": 0.1,
        "type": 0,
        "price": 1.0851,
        "sl": 1.08,
        "deviation": 20,
        "magic": 7,
        "comment": TAG,
        "type_time": 0,
        "type_filling": 0,
    }


def test_who_sells_sells_at_the_bid() -> None:
    request = send_requests(order(side=Side.SELL), facts(), 20)[0]
    assert (request["type"], request["price"]) == (1, 1.0850)


@pytest.mark.parametrize(
    ("mode", "execution", "expected"),
    [
        (1, Execution.MARKET, [Filling.FOK]),
        (2, Execution.MARKET, [Filling.IOC]),
        (3, Execution.MARKET, [Filling.FOK, Filling.IOC]),
        (0, Execution.MARKET, [Filling.RETURN]),
        (2, Execution.EXCHANGE, [Filling.IOC, Filling.RETURN]),
        (0, Execution.INSTANT, [Filling.FOK, Filling.IOC, Filling.RETURN]),
    ],
)
def test_the_filling_comes_from_the_symbols_mask(
    mode: int, execution: Execution, expected: list[Filling]
) -> None:
    seen = facts(filling_mode=mode, trade_exemode=execution)
    assert [one["type_filling"] for one in send_requests(order(), seen, 20)] == expected


def test_the_mask_is_not_taken_for_the_enumeration() -> None:
    # IOC is bit 2 of the mask and number 1 of the enumeration; FOK is bit 1 and number 0.
    wanted = order(time_in_force=TimeInForce.IOC)
    assert [one["type_filling"] for one in send_requests(wanted, facts(filling_mode=2), 20)] == [1]
    assert refusal(wanted, facts(filling_mode=1)) == "FILLING_UNSUPPORTED"
    assert refusal(order(time_in_force=TimeInForce.FOK), facts(filling_mode=2)) == "FILLING_UNSUPPORTED"


@pytest.mark.parametrize(
    ("kind", "side", "number", "price", "stoplimit"),
    [
        (OrderType.LIMIT, Side.BUY, 2, 1.08, None),
        (OrderType.LIMIT, Side.SELL, 3, 1.08, None),
        (OrderType.STOP, Side.BUY, 4, 1.09, None),
        (OrderType.STOP, Side.SELL, 5, 1.09, None),
        (OrderType.STOP_LIMIT, Side.BUY, 6, 1.09, 1.08),
        (OrderType.STOP_LIMIT, Side.SELL, 7, 1.09, 1.08),
    ],
)
def test_a_resting_order_is_a_pending_one(
    kind: OrderType, side: Side, number: int, price: float, stoplimit: float | None
) -> None:
    asked = order(type=kind, side=side, price=Decimal("1.08"), stop_price=Decimal("1.09"))
    request = send_requests(asked, facts(), 20)[0]
    assert (request["action"], request["type"], request["price"]) == (5, number, price)
    assert request.get("stoplimit") == stoplimit
    assert (request["type_filling"], "deviation" in request) == (Filling.RETURN, False)


def test_an_end_is_told_on_the_trade_servers_clock() -> None:
    asked = order(
        type=OrderType.LIMIT,
        price=Decimal("1.08"),
        time_in_force=TimeInForce.GTD,
        expires_at_ms=1_700_000_000_000,
    )
    request = send_requests(asked, facts(offset_s=7_200), 20)[0]
    assert (request["type_time"], request["expiration"]) == (2, 1_700_007_200)
    assert refusal(asked, facts(offset_s=UTC_OFFSET_UNKNOWN)) == "CLOCK_UNKNOWN"
    assert refusal(asked, facts(expiration_mode=3)) == "EXPIRATION_UNSUPPORTED"


@pytest.mark.parametrize("wanted", [TimeInForce.IOC, TimeInForce.FOK])
def test_a_resting_order_is_not_for_at_once(wanted: TimeInForce) -> None:
    asked = order(type=OrderType.LIMIT, price=Decimal("1.08"), time_in_force=wanted)
    assert refusal(asked, facts()) == "FILLING_UNSUPPORTED"


@pytest.mark.parametrize(
    ("volume", "code"),
    [
        ("NaN", "VOLUME_STEP"),
        ("Infinity", "VOLUME_STEP"),
        ("0.105", "VOLUME_STEP"),
        ("0.001", "VOLUME_STEP"),
        ("50.01", "VOLUME_RANGE"),
        ("0", "VOLUME_RANGE"),
    ],
)
def test_a_volume_that_does_not_fit_is_refused_and_not_rounded(volume: str, code: str) -> None:
    assert refusal(order(volume=Decimal(volume)), facts()) == code


@given(lots=st.integers(1, 5_000))
def test_a_volume_that_fits_is_sent_as_it_is(lots: int) -> None:
    volume = Decimal(lots) / 100
    request = send_requests(order(volume=volume), facts(), 20)[0]
    assert Decimal(str(request["volume"])) == volume


@pytest.mark.parametrize("price", ["NaN", "Infinity", "0", "-1"])
def test_what_is_no_price_is_refused(price: str) -> None:
    assert refusal(order(type=OrderType.LIMIT, price=Decimal(price)), facts()) == "PRICE_STEP"


def test_without_a_quote_there_is_nothing_to_trade_at() -> None:
    silent = replace(facts(), quote=msgspec.structs.replace(QUOTE, ask=0.0))
    assert refusal(order(), silent) == "NO_QUOTES"


def test_exactly_at_the_smallest_and_the_largest_volume_is_allowed() -> None:
    for volume in ("0.01", "50.00"):
        assert send_requests(order(volume=Decimal(volume)), facts(), 20)


@pytest.mark.parametrize("field", ["price", "stop_loss", "take_profit"])
def test_a_price_between_two_ticks_is_refused(field: str) -> None:
    asked = order(type=OrderType.LIMIT, **{"price": Decimal("1.08"), field: Decimal("1.080001")})
    assert refusal(asked, facts()) == "PRICE_STEP"


def test_closing_on_a_hedging_account_names_the_position() -> None:
    closing = order(side=Side.SELL, position="77", reduce_only=True)
    request = send_requests(closing, facts(hedging=True, positions=(LONG,)), 20)[0]
    assert request["position"] == 77


@pytest.mark.parametrize(
    ("changes", "hedging", "code"),
    [
        ({"side": Side.BUY}, False, "REDUCE_ONLY"),
        ({"side": Side.SELL, "volume": Decimal("0.51")}, False, "REDUCE_ONLY"),
        ({"side": Side.SELL}, True, "POSITION_REQUIRED"),
        ({"side": Side.SELL, "position": "78"}, True, "REDUCE_ONLY"),
        (
            {"side": Side.SELL, "type": OrderType.LIMIT, "price": Decimal("1.09")},
            False,
            "REDUCE_ONLY_UNSUPPORTED",
        ),
    ],
)
def test_what_only_reduces_opens_and_turns_nothing(changes: dict[str, Any], hedging: bool, code: str) -> None:
    asked = order(reduce_only=True, **changes)
    assert refusal(asked, facts(hedging=hedging, positions=(LONG,))) == code


def test_exactly_what_is_held_may_be_closed() -> None:
    asked = order(reduce_only=True, side=Side.SELL, volume=Decimal("0.5"))
    assert send_requests(asked, facts(positions=(LONG,)), 20)


@pytest.mark.parametrize("tag", ["", "x" * 30, "ä" * 26, "a\nb"])
def test_a_tag_that_is_no_comment_is_refused(tag: str) -> None:
    assert refusal(order(id=tag), facts()) == "INVALID_TAG"


@pytest.mark.parametrize("ticket", ["", "-1", "1.0", "²", "9" * 20, "abc"])
def test_only_numbers_are_tickets(ticket: str) -> None:
    with pytest.raises(Invalid):
        ticket_of(ticket)


@given(tag=st.text("0123456789ABCDEFGHJKMNPQRSTVWXYZ", min_size=26, max_size=26))
def test_an_order_without_a_magic_number_gets_one_of_its_own(tag: str) -> None:
    number = magic_of(order(id=tag))
    assert 0 < number < 2**63
    assert number == magic_of(order(id=tag))


WORKING = PlacedOrder(
    ticket=5,
    time_setup_msc=0,
    type=TradeType.BUY_LIMIT,
    state=1,
    volume_initial=0.1,
    volume_current=0.1,
    price_open=1.08,
    sl=1.07,
    symbol="EURUSD",
)


def test_changing_repeats_what_does_not_change() -> None:
    request = modify_request(WORKING, OrderChange(price=Decimal("1.081")), SYMBOL)
    assert request == {
        "action": 7,
        "order": 5,
        "symbol": "EURUSD",
        "price": 1.081,
        "sl": 1.07,
        "tp": 0.0,
        "type_time": 0,
    }


def test_a_volume_cannot_be_changed() -> None:
    with pytest.raises(Invalid, match="volume"):
        modify_request(WORKING, OrderChange(volume=Decimal("0.2")), SYMBOL)
    assert modify_request(WORKING, OrderChange(volume=Decimal("0.1")), SYMBOL)


def test_of_a_filled_order_only_the_positions_levels_change() -> None:
    request = levels_request(LONG, OrderChange(take_profit=Decimal("1.1")), SYMBOL)
    assert request == {"action": 6, "symbol": "EURUSD", "position": 77, "sl": 0.0, "tp": 1.1}
    with pytest.raises(Invalid):
        levels_request(LONG, OrderChange(price=Decimal("1.1")), SYMBOL)


def test_every_request_has_only_keys_the_package_takes() -> None:
    requests = [
        *send_requests(order(position="77"), facts(), 20),
        *send_requests(
            order(type=OrderType.STOP_LIMIT, price=Decimal("1.1"), stop_price=Decimal("1.1")), facts(), 20
        ),
        remove_request(5),
        modify_request(WORKING, OrderChange(), SYMBOL),
        levels_request(LONG, OrderChange(), SYMBOL),
    ]
    assert set().union(*requests) <= REQUEST_KEYS
    assert all(type(value) in (int, float, str) for request in requests for value in request.values())
