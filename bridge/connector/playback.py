"""What terminals without a broker share: the package's calls, answered from a history."""

from abc import ABC, abstractmethod
from fnmatch import fnmatchcase

import numpy as np

from bridge.connector.terminal import AccountInfo, Quote, SymbolInfo, TerminalCode, TerminalInfo, Traits
from bridge.connector.trades import (
    CheckResult,
    MadeDeal,
    OpenPosition,
    PlacedOrder,
    Request,
    SendResult,
)
from core.model.ticks import TICK_DTYPE, Ticks

DATE_MAX = 2**31 - 1
"""The package takes 32-bit seconds."""


class HistoryTerminal(ABC):
    """Answers as the package does; a subclass knows which rows there are."""

    _error: tuple[int, str] = (TerminalCode.OK, "Success")

    @abstractmethod
    def traits(self) -> Traits: ...

    @abstractmethod
    def infos(self) -> tuple[SymbolInfo, ...]:
        """Return every symbol there is."""

    @abstractmethod
    def select_rows(self, symbol: str, from_ms: int, to_ms: int | None, count: int | None) -> Ticks:
        """Return what has happened from `from_ms` to `to_ms`, both included, the first `count` of it."""

    @abstractmethod
    def newest(self, symbol: str) -> Ticks:
        """Return the newest row, if there is one."""

    @abstractmethod
    def finished(self) -> bool: ...

    def initialize(self) -> bool:
        return True

    def shutdown(self) -> None:
        return

    def last_error(self) -> tuple[int, str]:
        return self._error

    def terminal_info(self) -> TerminalInfo | None:
        return TerminalInfo(connected=True, name=type(self).__name__)

    def account_info(self) -> AccountInfo | None:
        return AccountInfo(login=0, server=type(self).__name__)

    def symbols_get(self, *, group: str | None = None) -> tuple[SymbolInfo, ...] | None:
        self._succeed()
        return tuple(info for info in self.infos() if group is None or fnmatchcase(info.name, group))

    def symbol_info(self, symbol: str, /) -> SymbolInfo | None:
        self._succeed()
        found = next((info for info in self.infos() if info.name == symbol), None)
        if found is None:
            self.refuse(TerminalCode.NOT_FOUND, "Symbol not found")
        return found

    def symbol_select(self, symbol: str, enable: bool = True, /) -> bool:
        return self.symbol_info(symbol) is not None

    def symbol_info_tick(self, symbol: str, /) -> Quote | None:
        if self.symbol_info(symbol) is None:
            return None
        rows = self.newest(symbol)
        if not len(rows):
            self.refuse(TerminalCode.NOT_FOUND, "No tick yet")
            return None
        names = rows.dtype.names or ()
        return Quote(**{name: rows[name][0].item() for name in names})

    def copy_ticks_from(self, symbol: str, date_from: int, count: int, flags: int, /) -> Ticks | None:
        if not self._valid(symbol, date_from, count):
            return None
        return _wanted(self.select_rows(symbol, int(date_from) * 1_000, None, int(count)), flags)

    def copy_ticks_range(self, symbol: str, date_from: int, date_to: int, flags: int, /) -> Ticks | None:
        if not self._valid(symbol, date_from, 1):
            return None
        return _wanted(self.select_rows(symbol, int(date_from) * 1_000, int(date_to) * 1_000, None), flags)

    def order_check(self, request: Request, /) -> CheckResult | None:
        self._no_trading()
        return None

    def order_send(self, request: Request, /) -> SendResult | None:
        self._no_trading()
        return None

    def orders_get(self, *, ticket: int | None = None) -> tuple[PlacedOrder, ...] | None:
        self._no_trading()
        return None

    def positions_get(
        self, *, symbol: str | None = None, ticket: int | None = None
    ) -> tuple[OpenPosition, ...] | None:
        self._no_trading()
        return None

    def history_orders_get(
        self, date_from: int = 0, date_to: int = 0, *, ticket: int | None = None
    ) -> tuple[PlacedOrder, ...] | None:
        self._no_trading()
        return None

    def history_deals_get(
        self, date_from: int = 0, date_to: int = 0, *, ticket: int | None = None
    ) -> tuple[MadeDeal, ...] | None:
        self._no_trading()
        return None

    def _no_trading(self) -> None:
        self.refuse(TerminalCode.UNSUPPORTED, "There is no broker here")

    def refuse(self, code: TerminalCode, text: str) -> None:
        """Set what `last_error` says; the call then returns None."""
        self._error = (code, text)

    def _succeed(self) -> None:
        self._error = (TerminalCode.OK, "Success")

    def _valid(self, symbol: str, date_from: int, count: int) -> bool:
        if self.symbol_info(symbol) is None:
            return False
        if not 0 <= date_from <= DATE_MAX or count < 1:
            self.refuse(TerminalCode.INVALID_PARAMS, "Invalid params")
            return False
        return True


def _wanted(rows: Ticks, flags: int) -> Ticks:
    """Keep the kinds of ticks asked for: quotes (1), trades (2) or all (-1)."""
    if flags == -1 or flags & 3 == 3:
        return rows
    mask = np.uint32(2 | 4 if flags & 1 else 8 | 16)
    return rows[(rows["flags"] & mask) != 0] if len(rows) else np.empty(0, TICK_DTYPE)
