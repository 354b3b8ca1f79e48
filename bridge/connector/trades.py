"""Trading as the terminal has it: the package's enumerations, and what its calls about orders answer.

Fields have the package's names. Times are the trade server's wall clock. Source: the MetaTrader5 package's docstrings
and the documentation's enumerations; only what we read is listed.
"""

from enum import IntEnum
from typing import Final

import msgspec

Request = dict[str, int | float | str]
"""What order_check and order_send take; a key that is not in REQUEST_KEYS is refused by the package."""

REQUEST_KEYS: Final = frozenset(
    {"action", "magic", "order", "symbol", "volume", "price", "stoplimit", "sl", "tp", "deviation", "type"}
    | {"type_filling", "type_time", "expiration", "comment", "position", "position_by"}
)
COMMENT_CHARS_MAX: Final = 29
"""The package's own limit, of a symbol's name too."""
MAGIC_MAX: Final = 2**63 - 1


class TradeAction(IntEnum):
    DEAL = 1
    PENDING = 5
    SLTP = 6
    MODIFY = 7
    REMOVE = 8


class TradeType(IntEnum):
    BUY = 0
    SELL = 1
    BUY_LIMIT = 2
    SELL_LIMIT = 3
    BUY_STOP = 4
    SELL_STOP = 5
    BUY_STOP_LIMIT = 6
    SELL_STOP_LIMIT = 7
    CLOSE_BY = 8


class Filling(IntEnum):
    """The enumeration of `type_filling`; a symbol's `filling_mode` is a mask of other numbers."""

    FOK = 0
    IOC = 1
    RETURN = 2
    BOC = 3


FILLING_BITS: Final = {Filling.FOK: 1, Filling.IOC: 2, Filling.BOC: 4}


class TypeTime(IntEnum):
    GTC = 0
    DAY = 1
    SPECIFIED = 2
    SPECIFIED_DAY = 3


EXPIRATION_BITS: Final = {TypeTime.GTC: 1, TypeTime.DAY: 2, TypeTime.SPECIFIED: 4, TypeTime.SPECIFIED_DAY: 8}


class Execution(IntEnum):
    REQUEST = 0
    INSTANT = 1
    MARKET = 2
    EXCHANGE = 3


class PlacedState(IntEnum):
    STARTED = 0
    PLACED = 1
    CANCELED = 2
    PARTIAL = 3
    FILLED = 4
    REJECTED = 5
    EXPIRED = 6
    REQUEST_ADD = 7
    REQUEST_MODIFY = 8
    REQUEST_CANCEL = 9


class Reason(IntEnum):
    """Who made an order or a deal. BY_VENUE: stop loss, take profit, stop out."""

    CLIENT = 0
    EXPERT = 3
    STOP_LOSS = 4
    TAKE_PROFIT = 5
    STOP_OUT = 6


BY_VENUE: Final = frozenset({Reason.STOP_LOSS, Reason.TAKE_PROFIT, Reason.STOP_OUT})
HEDGING_MARGIN_MODE: Final = 2
IN, OUT, INOUT = 0, 1, 2
"""A deal's `entry`."""


class PlacedOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Of orders_get and history_orders_get."""

    ticket: int
    time_setup_msc: int
    time_done_msc: int = 0
    time_expiration: int = 0
    type: int
    type_time: int = 0
    type_filling: int = 0
    state: int
    magic: int = 0
    position_id: int = 0
    reason: int = Reason.CLIENT
    volume_initial: float
    volume_current: float
    price_open: float = 0.0
    sl: float = 0.0
    tp: float = 0.0
    price_stoplimit: float = 0.0
    symbol: str
    comment: str = ""


class OpenPosition(msgspec.Struct, frozen=True, kw_only=True):
    """Of positions_get. identifier: the ticket of the order that opened it."""

    ticket: int
    time_msc: int
    type: int
    magic: int = 0
    identifier: int = 0
    reason: int = Reason.CLIENT
    volume: float
    price_open: float
    sl: float = 0.0
    tp: float = 0.0
    symbol: str
    comment: str = ""


class MadeDeal(msgspec.Struct, frozen=True, kw_only=True):
    """Of history_deals_get. type: other than BUY and SELL are bookings, not trades."""

    ticket: int
    order: int
    time_msc: int
    type: int
    entry: int = IN
    magic: int = 0
    position_id: int = 0
    reason: int = Reason.CLIENT
    volume: float
    price: float
    commission: float = 0.0
    fee: float = 0.0
    profit: float = 0.0
    symbol: str = ""
    comment: str = ""


class SendResult(msgspec.Struct, frozen=True, kw_only=True):
    """Of order_send."""

    retcode: int
    deal: int = 0
    order: int = 0
    volume: float = 0.0
    price: float = 0.0
    comment: str = ""


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """Of order_check. retcode: 0 is fine."""

    retcode: int
    margin: float = 0.0
    margin_free: float = 0.0
    comment: str = ""
