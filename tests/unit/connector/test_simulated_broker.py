"""The simulated broker trades as a trade server does, at quotes of the test's own making, and forgets nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridge.connector.faults import OrderFaultPlan, OrderFaults
from bridge.connector.simulated import SimulatedTerminal
from bridge.connector.simulated_broker import OPENING_BALANCE, SimulatedBroker
from bridge.connector.simulated_checks import read
from bridge.connector.terminal import AccountInfo, Quote, SymbolInfo, TerminalCode
from bridge.connector.trades import Filling, PlacedState, Reason, SendResult, TradeType
from core.model.ticks import TICK_DTYPE

TAG = "01JD0000000000000000000000"


class Market:
    """Quotes the test makes, one a millisecond."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000
        self.rows = np.zeros(0, TICK_DTYPE)
        self.quoted(1.1000, 1.1001)

    def quoted(self, bid: float, ask: float) -> None:
        self.now_ms += 1
        row = np.zeros(1, TICK_DTYPE)
        row["time_msc"], row["bid"], row["ask"] = self.now_ms, bid, ask
        self.rows = np.concatenate((self.rows, row))

    def quote(self, symbol: str) -> Quote:
        row = self.rows[-1]
        return Quote(
            time=0,
            bid=float(row["bid"]),
            ask=float(row["ask"]),
            last=0.0,
            volume=0,
            time_msc=int(row["time_msc"]),
            flags=6,
            volume_real=0.0,
        )

    def ticks(self, symbol: str, from_ms: int, to_ms: int) -> np.ndarray:
        times = self.rows["time_msc"]
        return self.rows[(times >= from_ms) & (times <= to_ms)]


class Trader:
    """A broker in `directory` and what is asked of it."""

    def __init__(self, directory: Path, market: Market, *, hedging: bool = False, **faults: Any) -> None:
        self.market = market
        self.broker = SimulatedBroker(
            directory,
            hedging=hedging,
            infos={"EURUSD": SymbolInfo(name="EURUSD", digits=5)},
            quote=market.quote,
            ticks=market.ticks,
            now_ms=lambda: market.now_ms,
            faults=OrderFaults(OrderFaultPlan(**faults), 1, directory),
        )

    def send(self, **fields: Any) -> SendResult:
        request = {"action": 1, "symbol": "EURUSD", "volume": 0.1, "type": 0, "comment": TAG, **fields}
        fields_read = read(request)
        assert fields_read is not None
        result = self.broker.send(fields_read)
        assert result is not None
        return result

    def rest(self, kind: TradeType, price: float, **fields: Any) -> SendResult:
        return self.send(action=5, type=int(kind), price=price, type_filling=int(Filling.RETURN), **fields)

    def quoted(self, bid: float, ask: float) -> None:
        self.market.quoted(bid, ask)
        self.broker.advance()

    @property
    def lots(self) -> list[tuple[int, float]]:
        return [(one.type, one.volume) for one in self.broker.book.positions]


@pytest.fixture
def market() -> Market:
    return Market()


@pytest.fixture
def trader(tmp_path: Path, market: Market) -> Trader:
    return Trader(tmp_path, market)


def test_who_buys_pays_the_ask_and_who_sells_gets_the_bid(trader: Trader) -> None:
    assert trader.send().price == 1.1001
    assert trader.send(type=1).price == 1.1000
    assert trader.lots == []
    assert trader.broker.book.balance == OPENING_BALANCE - 1.0


def test_netting_has_one_position_a_symbol_and_turns_it(trader: Trader) -> None:
    trader.send()
    trader.market.quoted(1.1004, 1.1005)
    trader.send()
    (held,) = trader.broker.book.positions
    assert (held.volume, round(held.price_open, 6)) == (0.2, 1.1003)
    trader.send(type=1, volume=0.5)
    assert trader.lots == [(1, 0.3)]
    assert {deal.position_id for deal in trader.broker.book.deals} == {held.ticket}


def test_hedging_opens_a_position_for_each_deal_and_closes_by_ticket(tmp_path: Path, market: Market) -> None:
    trader = Trader(tmp_path, market, hedging=True)
    first = trader.send()
    trader.send(type=1)
    assert sorted(trader.lots) == [(0, 0.1), (1, 0.1)]
    trader.send(type=1, position=first.order)
    assert trader.lots == [(1, 0.1)]
    assert trader.broker.account(AccountInfo(login=1, server="s")).margin_mode == 2


@pytest.mark.parametrize(
    ("kind", "price", "untouched", "reached"),
    [
        (TradeType.BUY_LIMIT, 1.0990, (1.0990, 1.0991), (1.0989, 1.0990)),
        (TradeType.SELL_LIMIT, 1.1010, (1.1009, 1.1010), (1.1010, 1.1011)),
        (TradeType.BUY_STOP, 1.1010, (1.1008, 1.1009), (1.1010, 1.1012)),
        (TradeType.SELL_STOP, 1.0990, (1.0991, 1.0992), (1.0988, 1.0989)),
    ],
)
def test_a_pending_order_fills_when_a_quote_reaches_it(
    trader: Trader, kind: TradeType, price: float, untouched: tuple, reached: tuple
) -> None:
    placed = trader.rest(kind, price)
    trader.quoted(*untouched)
    assert [one.ticket for one in trader.broker.book.orders] == [placed.order]
    trader.quoted(*reached)
    trader.quoted(1.1, 1.1001)
    assert trader.broker.book.orders == []
    (deal,) = trader.broker.book.deals
    assert (deal.order, deal.price) == (placed.order, reached[1 - kind % 2])
    assert trader.broker.book.ended[-1].state == PlacedState.FILLED


def test_a_stop_limit_becomes_a_limit_first(trader: Trader) -> None:
    trader.rest(TradeType.BUY_STOP_LIMIT, 1.1010, stoplimit=1.1005)
    trader.quoted(1.1009, 1.1010)
    assert [(one.type, one.price_open) for one in trader.broker.book.orders] == [
        (TradeType.BUY_LIMIT, 1.1005)
    ]
    trader.quoted(1.1004, 1.1005)
    assert [deal.price for deal in trader.broker.book.deals] == [1.1005]


@pytest.mark.parametrize(
    ("level", "reached", "reason", "profit"),
    [
        ({"sl": 1.0990}, (1.0989, 1.0990), Reason.STOP_LOSS, -12.0),
        ({"tp": 1.1010}, (1.1011, 1.1012), Reason.TAKE_PROFIT, 10.0),
    ],
)
def test_a_stop_closes_its_position_by_itself(
    trader: Trader, level: dict, reached: tuple, reason: Reason, profit: float
) -> None:
    trader.send(**level)
    trader.quoted(1.1000, 1.1001)
    assert len(trader.lots) == 1
    trader.quoted(*reached)
    assert trader.lots == []
    deal = trader.broker.book.deals[-1]
    assert (deal.reason, deal.profit, deal.comment == TAG) == (reason, profit, False)


def test_an_order_ends_at_its_expiration(trader: Trader) -> None:
    trader.rest(TradeType.BUY_LIMIT, 1.0, type_time=2, expiration=1_001)
    trader.market.now_ms = 1_000_999
    trader.broker.advance()
    assert len(trader.broker.book.orders) == 1
    trader.market.now_ms = 1_001_000
    trader.broker.advance()
    assert trader.broker.book.ended[-1].state == PlacedState.EXPIRED


@pytest.mark.parametrize(
    ("fields", "retcode"),
    [
        ({"symbol": "NOTHING"}, 10_013),
        ({"volume": 0.001}, 10_014),
        ({"volume": 0.015}, 10_014),
        ({"volume": 100.01}, 10_014),
        ({"type_filling": 2}, 10_030),
        ({"sl": 1.2}, 10_016),
        ({"tp": 1.0}, 10_016),
        ({"volume": 99.0}, 10_019),
        ({"position": 5}, 10_036),
        ({"action": 5, "type": 2, "price": 1.2, "type_filling": 2}, 10_015),
        ({"action": 5, "type": 2, "price": 1.0, "type_filling": 2, "expiration": 1}, 10_022),
        ({"action": 5, "type": 2, "price": 1.0, "type_filling": 0}, 10_030),
        ({"action": 8, "order": 5}, 10_013),
        ({"action": 6, "position": 5}, 10_036),
    ],
)
def test_what_a_trade_server_refuses_is_refused(trader: Trader, fields: dict[str, Any], retcode: int) -> None:
    assert trader.send(**fields).retcode == retcode
    assert trader.broker.book.executions == {}


def test_more_than_is_held_cannot_be_closed(tmp_path: Path, market: Market) -> None:
    trader = Trader(tmp_path, market, hedging=True)
    held = trader.send()
    assert trader.send(type=1, position=held.order, volume=0.11).retcode == 10_038
    assert trader.send(type=1, position=held.order, volume=0.10).retcode == 10_009


def test_everything_survives_a_restart(tmp_path: Path, market: Market) -> None:
    first = Trader(tmp_path, market)
    first.send()
    resting = first.rest(TradeType.BUY_LIMIT, 1.0)
    again = Trader(tmp_path, market)
    assert again.lots == [(0, 0.1)]
    assert [one.ticket for one in again.broker.book.orders] == [resting.order]
    assert again.broker.book.executions == {TAG: 2}
    assert again.send(action=8, order=resting.order).retcode == 10_009
    assert Trader(tmp_path, market).broker.book.orders == []


def test_the_truth_counts_what_was_executed_whatever_was_answered(tmp_path: Path, market: Market) -> None:
    trader = Trader(tmp_path, market, timeout=1.0, rewrite_comment=1.0)
    assert trader.send().retcode == 10_012
    assert trader.broker.book.executions == {TAG: 1}
    assert trader.broker.book.deals[0].comment == "broker/7"


def test_keys_the_package_does_not_know_and_long_comments_are_refused_as_it_does(tmp_path: Path) -> None:
    terminal = SimulatedTerminal({}, tmp_path)
    for request in ({"action": 1, "size": 1.0}, {"action": 1, "comment": "x" * 30}, {"action": "DEAL"}):
        assert terminal.order_send(request) is None
        assert terminal.last_error()[0] == TerminalCode.INVALID_PARAMS


def test_what_was_changed_to_what_it_is_says_so(trader: Trader) -> None:
    placed = trader.rest(TradeType.BUY_LIMIT, 1.0)
    change = {"action": 7, "order": placed.order, "price": 1.01}
    assert trader.send(**change).retcode == 10_009
    assert trader.send(**change).retcode == 10_025
