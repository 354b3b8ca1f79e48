"""The terminal as the connector sees it: a Protocol shaped on the MetaTrader5 package, and that package's numbers."""

from enum import IntEnum
from typing import Final, Protocol

import msgspec

from bridge.connector.trades import (
    CheckResult,
    MadeDeal,
    OpenPosition,
    PlacedOrder,
    Request,
    SendResult,
)
from core.errors.exceptions import Unavailable
from core.model.ticks import Ticks

COPY_TICKS_ALL: Final = -1
COPY_TICKS_INFO: Final = 1
COPY_TICKS_TRADE: Final = 2


class TerminalCode(IntEnum):
    """What `last_error` may say. Source: the package's RES_ constants."""

    OK = 1
    FAIL = -1
    INVALID_PARAMS = -2
    NO_MEMORY = -3
    NOT_FOUND = -4
    INVALID_VERSION = -5
    AUTH_FAILED = -6
    UNSUPPORTED = -7
    AUTO_TRADING_DISABLED = -8
    INTERNAL_FAIL = -10_000
    INTERNAL_FAIL_SEND = -10_001
    INTERNAL_FAIL_RECEIVE = -10_002
    INTERNAL_FAIL_INIT = -10_003
    INTERNAL_FAIL_CONNECT = -10_004
    INTERNAL_FAIL_TIMEOUT = -10_005


IPC_CODES: Final = frozenset(code for code in TerminalCode if code <= TerminalCode.INTERNAL_FAIL)
"""The pipe between package and terminal is broken: only initializing again helps."""


class SymbolInfo(msgspec.Struct, frozen=True, kw_only=True):
    """filling_mode, expiration_mode: masks of what is allowed; 0 where the terminal does not say."""

    name: str
    digits: int
    select: bool = True
    filling_mode: int = 0
    expiration_mode: int = 0
    trade_exemode: int = 0
    trade_tick_size: float = 0.0
    volume_min: float = 0.0
    volume_max: float = 0.0
    volume_step: float = 0.0


class Quote(msgspec.Struct, frozen=True, kw_only=True):
    """The newest tick of a symbol. It skips ticks, so it never is the record of anything."""

    time: int
    bid: float
    ask: float
    last: float
    volume: int
    time_msc: int
    flags: int
    volume_real: float


class TerminalInfo(msgspec.Struct, frozen=True, kw_only=True):
    """connected: to the trade server."""

    connected: bool
    name: str = ""
    build: int = 0


class AccountInfo(msgspec.Struct, frozen=True, kw_only=True):
    """margin_mode: 2 is hedging. Money as the terminal counts it, in `currency`."""

    login: int
    server: str
    currency: str = ""
    margin_mode: int = 0
    balance: float = 0.0
    equity: float = 0.0
    margin: float = 0.0
    margin_free: float = 0.0


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """What an adapter declares about itself, beyond the package.

    declared_utc_offset_s: trade server clock minus UTC where the adapter knows it, e.g. from a recording.
    replays: it plays a recording, whose rows are the feed itself, however old they are.
    """

    declared_utc_offset_s: int | None = None
    replays: bool = False


class Terminal(Protocol):
    """A terminal adapter, built as `Adapter(options, directory)`.

    options: the settings' `terminal_options`; directory: where it may keep a small state file.

    Methods have the package's names, argument order and meaning. Dates are whole 32-bit seconds of the trade
    server's wall clock; a range ends at second `date_to` exactly. None means an error, told by `last_error`;
    an empty array means that there is nothing.
    """

    def traits(self) -> Traits:
        """Return what this adapter declares."""

    def initialize(self) -> bool:
        """Connect to the terminal; False is an error."""

    def shutdown(self) -> None:
        """Disconnect."""

    def last_error(self) -> tuple[int, str]:
        """Return code and text of the last call."""

    def terminal_info(self) -> TerminalInfo | None: ...

    def account_info(self) -> AccountInfo | None: ...

    def symbols_get(self, *, group: str | None = None) -> tuple[SymbolInfo, ...] | None: ...

    def symbol_info(self, symbol: str, /) -> SymbolInfo | None: ...

    def symbol_info_tick(self, symbol: str, /) -> Quote | None: ...

    def symbol_select(self, symbol: str, enable: bool = True, /) -> bool: ...

    def copy_ticks_from(self, symbol: str, date_from: int, count: int, flags: int, /) -> Ticks | None: ...

    def copy_ticks_range(self, symbol: str, date_from: int, date_to: int, flags: int, /) -> Ticks | None: ...

    def order_check(self, request: Request, /) -> CheckResult | None: ...

    def order_send(self, request: Request, /) -> SendResult | None: ...

    def orders_get(self, *, ticket: int | None = None) -> tuple[PlacedOrder, ...] | None: ...

    def positions_get(
        self, *, symbol: str | None = None, ticket: int | None = None
    ) -> tuple[OpenPosition, ...] | None: ...

    def history_orders_get(
        self, date_from: int = 0, date_to: int = 0, *, ticket: int | None = None
    ) -> tuple[PlacedOrder, ...] | None:
        """Return ended orders of a time, or the one with this ticket."""

    def history_deals_get(
        self, date_from: int = 0, date_to: int = 0, *, ticket: int | None = None
    ) -> tuple[MadeDeal, ...] | None:
        """Return deals of a time, or those of the order with this ticket."""

    def finished(self) -> bool:
        """Whether no tick will ever be added: true only of a recording that was played to its end."""


class TerminalRefused(Unavailable):
    """The terminal answered None. error_code: what `last_error` said."""

    default_code = "TERMINAL_REFUSED"

    def __init__(self, call: str, error_code: int, text: str) -> None:
        super().__init__(f"the terminal refused {call}: {text} ({error_code})")
        self.error_code = error_code


class TerminalLate(Unavailable):
    """The call's time was over before the terminal's process began with it; nothing was done."""

    default_code = "TOO_LATE"


class TerminalHung(Unavailable):
    """A call outlasted its time; the terminal's process was killed."""

    default_code = "TERMINAL_HUNG"


class TerminalDied(Unavailable):
    """The terminal's process ended."""

    default_code = "TERMINAL_DIED"
