"""The MetaTrader 5 terminal on this Windows machine. The one file that touches the MetaTrader5 package."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from bridge.connector.terminal import AccountInfo, Quote, SymbolInfo, TerminalInfo, Traits
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
        if found is None:
            return None
        return tuple(msgspec.convert(info, SymbolInfo, from_attributes=True) for info in found)

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

    def finished(self) -> bool:
        return False


def _as(kind: type[Kind], found: object) -> Kind | None:
    return None if found is None else msgspec.convert(found, kind, from_attributes=True)


def _package() -> Any:
    """Return the package, loaded now. Raises: Misconfigured, saying what to install."""
    resolve(f"{PACKAGE}:copy_ticks_from")
    return sys.modules[PACKAGE]
