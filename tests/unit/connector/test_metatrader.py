"""The MetaTrader adapter passes calls through as the package wants them; tested on a stand-in for the package."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from bridge.connector.metatrader import MetaTraderTerminal
from core.errors.exceptions import Misconfigured
from tests.unit.connector.tapes import ticks


@pytest.fixture
def package(monkeypatch):
    """Refuses what the real one refuses: named copy arguments and numpy integers."""
    module = ModuleType("MetaTrader5")
    module.calls = []

    def initialize(*arguments, **named):
        module.calls.append((arguments, named))
        return True

    def copy_ticks_from(symbol, date_from, count, flags, /):
        assert all(type(value) is int for value in (date_from, count, flags))
        return ticks([date_from * 1_000]) if symbol == "EURUSD" else None

    module.initialize = initialize
    module.shutdown = lambda: None
    module.last_error = lambda: (-4, "Terminal: Not found")
    module.copy_ticks_from = copy_ticks_from
    module.copy_ticks_range = copy_ticks_from
    module.symbols_get = lambda **_: (SimpleNamespace(name="EURUSD", digits=5, select=False, point=1e-5),)
    module.terminal_info = lambda: SimpleNamespace(connected=True, name="MetaTrader 5", build=5_000)
    module.symbol_info = lambda symbol: None
    module.symbol_select = lambda symbol, enable: symbol == "EURUSD"
    monkeypatch.setitem(sys.modules, "MetaTrader5", module)
    return module


def test_initialize_gives_what_was_set(package, tmp_path):
    options = {"path": "C:/mt5/terminal64.exe", "login": 7, "password": "p", "server": "S", "portable": True}
    assert MetaTraderTerminal(options, tmp_path).initialize()
    named = {"timeout": 60_000, "portable": True, "login": 7, "password": "p", "server": "S"}
    assert package.calls == [(("C:/mt5/terminal64.exe",), named)]


def test_without_a_login_the_terminals_own_is_used(package, tmp_path):
    MetaTraderTerminal({}, tmp_path).initialize()
    assert package.calls == [((), {"timeout": 60_000, "portable": False})]


def test_results_become_our_types(package, tmp_path):
    terminal = MetaTraderTerminal({}, tmp_path)
    assert terminal.symbols_get()[0].digits == 5
    assert terminal.terminal_info().connected
    assert terminal.symbol_info("X") is None
    assert terminal.symbol_select("EURUSD", True)
    assert terminal.copy_ticks_from("EURUSD", np.int64(5), np.int64(1), -1)["time_msc"][0] == 5_000
    assert terminal.copy_ticks_range("NOTHING", 5, 6, -1) is None
    assert terminal.last_error() == (-4, "Terminal: Not found")


def test_unknown_options_are_refused(package, tmp_path):
    with pytest.raises(Misconfigured):
        MetaTraderTerminal({"pasword": "x"}, tmp_path)


def test_without_the_package_it_says_what_to_install(tmp_path):
    with pytest.raises(Misconfigured, match="pip install MetaTrader5"):
        MetaTraderTerminal({}, tmp_path)


@pytest.fixture
def trading(package):
    """Refuses what the real one refuses: positional tickets, and requests that are no dict."""
    order = SimpleNamespace(
        ticket=5,
        time_setup_msc=1,
        time_done_msc=2,
        time_expiration=0,
        type=2,
        type_time=0,
        type_filling=2,
        state=1,
        magic=2**63 - 1,
        position_id=0,
        reason=3,
        volume_initial=0.1,
        volume_current=0.1,
        price_open=1.1,
        sl=0.0,
        tp=0.0,
        price_stoplimit=0.0,
        symbol="EURUSD",
        comment="x",
        external_id="",
    )

    def orders_get(*, ticket=None):
        package.calls.append(("orders_get", ticket))
        return (order,) if ticket in (None, 5) else ()

    def history_orders_get(*dates, ticket=None):
        assert (len(dates) == 2) != (ticket is not None)
        return (order,)

    def order_send(request):
        assert type(request) is dict
        package.calls.append(("order_send", request))
        return SimpleNamespace(retcode=10_009, deal=6, order=5, volume=0.1, price=1.1, comment="", bid=1.0)

    package.orders_get = orders_get
    package.history_orders_get = history_orders_get
    package.history_deals_get = lambda *dates, ticket=None: None
    package.positions_get = lambda **named: ()
    package.order_send = order_send
    package.order_check = lambda request: SimpleNamespace(
        retcode=0, margin=1.0, margin_free=2.0, comment="Done"
    )
    for helper in ("Buy", "Sell", "Close"):
        setattr(package, helper, None)
    return package


def test_an_order_is_sent_once_and_by_order_send(trading, tmp_path):
    result = MetaTraderTerminal({}, tmp_path).order_send({"action": 1})
    assert (result.retcode, result.order, result.deal) == (10_009, 5, 6)
    assert trading.calls == [("order_send", {"action": 1})]


def test_orders_are_asked_for_by_name_or_by_date(trading, tmp_path):
    terminal = MetaTraderTerminal({}, tmp_path)
    assert terminal.orders_get()[0].magic == 2**63 - 1
    assert terminal.orders_get(ticket=6) == ()
    assert terminal.history_orders_get(1, 2)[0].ticket == 5
    assert terminal.history_orders_get(ticket=5)[0].ticket == 5
    assert terminal.positions_get(symbol="EURUSD") == ()
    assert terminal.order_check({"action": 1}).retcode == 0


def test_no_answer_stays_none(trading, tmp_path):
    trading.order_send = lambda request: None
    terminal = MetaTraderTerminal({}, tmp_path)
    assert terminal.order_send({"action": 1}) is None
    assert terminal.history_deals_get(1, 2) is None
