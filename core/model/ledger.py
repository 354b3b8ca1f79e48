"""What the ledger keeps of trading: orders with where they stand, fills, positions, accounts. Times: UTC epoch ms."""

import hashlib
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from core.model.orders import Order, OrderState, Side
from core.model.records import Instrument
from core.model.risk import Denial, Exposure
from core.model.venues import OrderChange, TradingAccount

ID_LENGTH: Final = 26
"""Of a ULID, which fits into what a venue keeps of a comment."""
VIEW_AGE_MS_MAX: Final = 30_000
"""An account whose venue has not been seen for this long is not connected."""


def magic_of(order_id: str) -> int:
    """Return the number by which a venue that rewrites comments still tells whose order it is."""
    return int.from_bytes(hashlib.blake2b(order_id.encode(), digest_size=8).digest(), "big") >> 1


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderEntry:
    """An order and where it stands.

    version: counts its changes. venue_order: the venue's ticket, "" before there is one. retcode, code, reason: what
    the venue said last that was not as wished. margin_needed, notional: in the account's currency. external: found at
    the venue, where somebody else put it. absent_since_ms: when the venue first said that it has never seen it.
    """

    order: Order
    state: OrderState
    version: int
    filled_volume: Decimal = Decimal(0)
    average_price: Decimal | None = None
    venue_order: str = ""
    retcode: int | None = None
    code: str = ""
    reason: str = ""
    denials: tuple[Denial, ...] = ()
    limits_version: int = 0
    margin_needed: Decimal = Decimal(0)
    notional: Decimal = Decimal(0)
    submitted_by: str = ""
    external: bool = False
    traceparent: str = ""
    updated_at_ms: int = 0
    sent_at_ms: int | None = None
    absent_since_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderEvent:
    """One thing that happened to an order. what: a word; detail: numbers and words, as text."""

    seq: int
    at_ms: int
    old_state: OrderState
    new_state: OrderState
    what: str
    detail: dict[str, Any]
    traceparent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """A deal as the ledger keeps it. order: ours, None where somebody else's order made it."""

    account: str
    deal: str
    order: str | None
    venue_order: str
    position: str
    symbol: str
    side: Side
    volume: Decimal
    price: Decimal
    profit: Decimal
    commission: Decimal
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """A position as the ledger keeps it. order: the one that opened it, "" where it was not ours."""

    account: str
    ticket: str
    symbol: str
    side: Side
    volume: Decimal
    price_open: Decimal
    stop_loss: Decimal | None
    take_profit: Decimal | None
    order: str
    opened_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How an account stands, as its venue last said at viewed_at_ms; None: never.

    notional: of its positions, in its currency. reconciled_at_ms: when everything here and there was last matched.
    day: the one day_start_equity is of, in UTC. moves: of its orders, ever.
    """

    account: TradingAccount
    balance: Decimal | None = None
    equity: Decimal | None = None
    margin: Decimal | None = None
    margin_free: Decimal | None = None
    notional: Decimal | None = None
    day: date | None = None
    day_start_equity: Decimal | None = None
    peak_equity: Decimal | None = None
    consecutive_rejects: int = 0
    deals_until_ms: int = 0
    moves: int = 0
    viewed_at_ms: int | None = None
    reconciled_at_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What the ledger knows of an account and a symbol before anything is locked.

    account: None where it cannot trade; reachable: whether its source is the tenant's. instruments: of the symbol, and
    those whose prices turn its currency into the account's.
    """

    account: TradingAccount | None
    reachable: bool
    instruments: tuple[Instrument, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeskFacts:
    """What the ledger knows when an order is judged. now_ms: the database's clock, which all of it is told by.

    exposure: of the order's symbol; named: of the position it names alone. margin_moving, notional_moving: of orders
    the venue's view has not counted yet. submits: of the last minute; twins: orders like it since the duplicate window
    began.
    """

    now_ms: int
    standing: Standing
    exposure: Exposure
    named: Exposure
    margin_moving: Decimal
    notional_moving: Decimal
    submits: int
    twins: int
    id_used: bool


class Command(StrEnum):
    """What is still to be done about an order."""

    SEND = "send"
    CANCEL = "cancel"
    MODIFY = "modify"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxRow:
    """Something still to be done. change: of a modification."""

    id: int
    tenant: str
    account: str
    order: str
    command: Command
    change: OrderChange | None
    tries: int


class BreakSort(StrEnum):
    """How ledger and venue may disagree. MISSING: ours, not there; EXTERNAL: there, not ours; QUANTITY: not as much.

    RESURFACED: there, and over here.
    """

    MISSING = "missing"
    EXTERNAL = "external"
    QUANTITY = "quantity"
    RESURFACED = "resurfaced"


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """A disagreement. subject: an order's id or a ticket; detail: both sides, as text."""

    sort: BreakSort
    subject: str
    detail: dict[str, str]
