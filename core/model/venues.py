"""What a venue says: of an order it was sent, and of all it holds for an account. Volumes in lots, times UTC epoch ms.

A tag is the id of our order, which the venue keeps with it and its deals; "" is somebody else's. Tickets are the
venue's own names.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from core.model.orders import OrderState, OrderType, Side

BEGUN_WITHIN_S: Final = 5.0
"""No venue begins with what it was asked longer ago, however late that arrives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TradingAccount:
    """An account and how to reach it. source: the connector whose terminal holds it, whose quotes fill it on paper.

    leverage: 100 stands for 1:100. opening_balance: of an account on paper. login, server: what the terminal must be
    signed in to; 0 and "" are any.
    """

    tenant: str
    id: str
    venue: str
    source: str
    currency: str
    leverage: int
    hedging: bool
    opening_balance: Decimal = Decimal(0)
    login: int = 0
    server: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deal:
    """One execution. order: the venue's ticket of the order behind it; position: of the position it made or changed.

    profit: realised by it, in the account's currency, as commission is, which is below 0 where it costs.
    """

    ticket: str
    tag: str
    order: str
    position: str
    symbol: str
    side: Side
    volume: Decimal
    price: Decimal
    profit: Decimal = Decimal(0)
    commission: Decimal = Decimal(0)
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueOrder:
    """An order as the venue has it. volume_left: not filled yet."""

    ticket: str
    tag: str
    symbol: str
    side: Side
    type: OrderType
    state: OrderState
    volume: Decimal
    volume_left: Decimal
    price: Decimal | None = None
    stop_price: Decimal | None = None
    stop_loss: Decimal | None = None
    take_profit: Decimal | None = None
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VenuePosition:
    """A position as the venue has it. On a netting account there is one a symbol."""

    ticket: str
    tag: str
    symbol: str
    side: Side
    volume: Decimal
    price_open: Decimal
    stop_loss: Decimal | None = None
    take_profit: Decimal | None = None
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueReport:
    """The venue's answer to an order, a cancellation or a change.

    state: what the order is in now; UNKNOWN where nobody can say. order: its ticket, "" where it has none. retcode: the
    venue's own number. code, reason: stable word and sentence, of what is not as wished. deals: made at once.
    """

    state: OrderState
    order: str = ""
    retcode: int | None = None
    code: str = ""
    reason: str = ""
    deals: tuple[Deal, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueView:
    """Everything a venue holds for an account at one moment.

    orders: that work; ended: orders that ended since the moment asked for; deals: since then, oldest first. margin:
    in use. equity: None where it cannot be computed.
    """

    at_ms: int
    balance: Decimal
    equity: Decimal | None
    margin: Decimal | None
    margin_free: Decimal | None
    orders: tuple[VenueOrder, ...] = ()
    ended: tuple[VenueOrder, ...] = ()
    deals: tuple[Deal, ...] = ()
    positions: tuple[VenuePosition, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderChange:
    """What a working order shall be from now on; None leaves a field as it is."""

    price: Decimal | None = None
    stop_price: Decimal | None = None
    stop_loss: Decimal | None = None
    take_profit: Decimal | None = None
    volume: Decimal | None = None
