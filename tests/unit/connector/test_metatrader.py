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
