"""The MetaTrader 5 terminal on this Windows machine. The one file that touches the MetaTrader5 package."""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from bridge.connector.terminal import AccountInfo, Quote, SymbolInfo, TerminalInfo, Traits
from bridge.connector.trades import (
    CheckResult,
    MadeDeal,
    OpenPosition,
    PlacedOrder,
    Request,
    SendResult,
)
from core.errors.exceptions import Misconfigured
from core.infrastructure.import_manager import resolve
from core.model.ticks import Ticks

CONNECT_TIMEOUT_MS: Final = 60_000
PACKAGE: Final = "MetaTrader5"

Kind = TypeVar("Kind")


class MetaTraderOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """path: of terminal64.exe; without one the package finds it. portable: its data lies beside the program."""

    path: str = ""
    login: int = 0
    server: str = ""
    password: str = ""
    portable: bool = False
    timeout: int = CONNECT_TIMEOUT_MS


class MetaTraderTerminal:
    """Thin pass-through: the package's results, as our types."""

    def __init__(self, options: Mapping[str, Any], directory: Path) -> None:
        try:
            self._options = msgspec.convert(dict(options), MetaTraderOptions)
        except msgspec.ValidationError as e:
            raise Misconfigured(f"terminal_options of MetaTrader: {e}", code="BAD_TERMINAL_OPTIONS") from e
        self._package = _package()

    def traits(self) -> Traits:
        return Traits()

    def initialize(self) -> bool:
        options = self._options
        arguments = [options.path] if options.path else []
        named: dict[str, Any] = {"timeout": options.timeout, "portable": options.portable}
        if options.login:
            named.update(login=options.login, password=options.password, server=options.server)
        return bool(self._package.initialize(*arguments, **named))

    def shutdown(self) -> None:
        self._package.shutdown()

    def last_error(self) -> tuple[int, str]:
        code, text = self._package.last_error()
        return int(code), str(text)

    def terminal_info(self) -> TerminalInfo | None:
        return _as(TerminalInfo, self._package.terminal_info())

    def account_info(self) -> AccountInfo | None:
        return _as(AccountInfo, self._package.account_info())

    def symbols_get(self, *, group: str | None = None) -> tuple[SymbolInfo, ...] | None:
        found = self._package.symbols_get(group=group) if group else self._package.symbols_get()
        return _all(SymbolInfo, found)

    def symbol_info(self, symbol: str, /) -> SymbolInfo | None:
        return _as(SymbolInfo, self._package.symbol_info(symbol))

    def symbol_info_tick(self, symbol: str, /) -> Quote | None:
        return _as(Quote, self._package.symbol_info_tick(symbol))

    def symbol_select(self, symbol: str, enable: bool = True, /) -> bool:
        return bool(self._package.symbol_select(symbol, enable))

    # int(): the package refuses numpy integers.
    def copy_ticks_from(self, symbol: str, date_from: int, count: int, flags: int, /) -> Ticks | None:
        found: Ticks | None = self._package.copy_ticks_from(symbol, int(date_from), int(count), int(flags))
        return found

    def copy_ticks_range(self, symbol: str, date_from: int, date_to: int, flags: int, /) -> Ticks | None:
        found: Ticks | None = self._package.copy_ticks_range(symbol, int(date_from), int(date_to), int(flags))
        return found

    def order_check(self, request: Request, /) -> CheckResult | None:
        return _as(CheckResult, self._package.order_check(request))

    def order_send(self, request: Request, /) -> SendResult | None:
        # Never Buy, Sell or Close of the package: they send again by themselves.
        return _as(SendResult, self._package.order_send(request))

    def orders_get(self, *, ticket: int | None = None) -> tuple[PlacedOrder, ...] | None:
        return _all(PlacedOrder, self._package.orders_get(**_given(ticket=ticket)))

    def positions_get(
        self, *, symbol: str | None = None, ticket: int | None = None
    ) -> tuple[OpenPosition, ...] | None:
        return _all(OpenPosition, self._package.positions_get(**_given(symbol=symbol, ticket=ticket)))

    def history_orders_get(
        self, date_from: int = 0, date_to: int = 0, *, ticket: int | None = None
    ) -> tuple[PlacedOrder, ...] | None:
        dates = () if ticket is not None else (int(date_from), int(date_to))
        return _all(PlacedOrder, self._package.history_orders_get(*dates, **_given(ticket=ticket)))

    def history_deals_get(
        self, date_from: int = 0, date_to: int = 0, *, ticket: int | None = None
    ) -> tuple[MadeDeal, ...] | None:
        dates = () if ticket is not None else (int(date_from), int(date_to))
        return _all(MadeDeal, self._package.history_deals_get(*dates, **_given(ticket=ticket)))

    def finished(self) -> bool:
        return False


def _as(kind: type[Kind], found: object) -> Kind | None:
    return None if found is None else msgspec.convert(found, kind, from_attributes=True)


def _all(kind: type[Kind], found: Iterable[object] | None) -> tuple[Kind, ...] | None:
    return None if found is None else tuple(msgspec.convert(one, kind, from_attributes=True) for one in found)


def _given(**named: Any) -> dict[str, Any]:
    return {name: value for name, value in named.items() if value is not None}


def _package() -> Any:
    """Return the package, loaded now. Raises: Misconfigured, saying what to install."""
    resolve(f"{PACKAGE}:copy_ticks_from")
    return sys.modules[PACKAGE]
