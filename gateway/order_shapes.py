"""The shapes of trading on the wire."""

from decimal import Decimal
from typing import Annotated, Any, Final

import msgspec

from core.messages.message import Message
from core.messages.orders import CURSOR_LENGTH_MAX, OrderId, Symbol, Tag
from core.messages.records import PAGE_DEFAULT, PageLimit
from core.model.orders import OrderState, OrderType, Side, TimeInForce
from core.model.records import RecordId
from gateway import answers

VALID_FOR_MS_MAX: Final = 86_400_000
AMOUNT_PATTERN: Final = r"^(0|[1-9][0-9]{0,11})(\.[0-9]{1,12})?$"

APPROVAL_PATTERN: Final = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"

ApprovalId = Annotated[str, msgspec.Meta(pattern=APPROVAL_PATTERN)]
AmountText = Annotated[
    str, msgspec.Meta(description="A decimal as text, exact.", pattern=AMOUNT_PATTERN, examples=["0.10"])
]
Amount = AmountText | Annotated[float, msgspec.Meta(gt=0, le=999_999_999_999)]
"""A decimal, as text or as a number whose shortest form it is."""
DecimalText = Annotated[str, msgspec.Meta(description="A decimal as text, exact.", examples=["1.08312"])]


class OrderWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An order. volume: in lots; prices: in the symbol's quote currency.

    price: of limit and stop-limit orders. stop_price: what triggers stop and stop-limit orders. expires_at_ms: of gtd
    alone. valid_for_ms: it is not sent later than this; 5 s for a market order unless told. position: the one to close,
    on a hedging account. approval: somebody else's, where a limit demands one.
    """

    account: RecordId
    symbol: Symbol
    side: Side
    type: OrderType
    volume: Amount
    time_in_force: TimeInForce = TimeInForce.GTC
    price: Amount | None = None
    stop_price: Amount | None = None
    stop_loss: Amount | None = None
    take_profit: Amount | None = None
    expires_at_ms: answers.EpochMs | None = None
    valid_for_ms: Annotated[int, msgspec.Meta(ge=1, le=VALID_FOR_MS_MAX)] | None = None
    reduce_only: bool = False
    position: Tag = ""
    client_order_id: Tag = ""
    strategy: Tag = ""
    approval: ApprovalId | None = None


class ChangeWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a working order shall be from now on; what is left out stays."""

    price: Amount | None = None
    stop_price: Amount | None = None
    stop_loss: Amount | None = None
    take_profit: Amount | None = None


class CancelWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which of an account's orders to take back: all, or those of a symbol, a side, a strategy."""

    account: RecordId
    symbol: Symbol | None = None
    side: Side | None = None
    strategy: Tag | None = None


class DenialAnswer(msgspec.Struct, kw_only=True):
    """Why an order is not sent, with the numbers that decided it."""

    check: Annotated[int, msgspec.Meta(description="Which of the fourteen checks.", ge=1, le=14)]
    code: str
    reason: str
    numbers: dict[str, str]


class OrderAnswer(msgspec.Struct, kw_only=True):
    """An order and where it stands."""

    id: OrderId
    state: OrderState
    version: int
    account: str
    symbol: str
    side: Side
    type: OrderType
    time_in_force: TimeInForce
    volume: DecimalText
    filled_volume: DecimalText
    average_price: DecimalText | None
    price: DecimalText | None
    stop_price: DecimalText | None
    stop_loss: DecimalText | None
    take_profit: DecimalText | None
    expires_at_ms: answers.EpochMs | None
    valid_for_ms: int | None
    reduce_only: bool
    position: str
    client_order_id: str
    strategy: str
    venue_order: Annotated[str, msgspec.Meta(description="The venue's ticket, empty before there is one.")]
    retcode: Annotated[int | None, msgspec.Meta(description="The venue's own number.")]
    code: str
    reason: str
    denials: list[DenialAnswer]
    limits_version: int
    submitted_by: str
    external: Annotated[bool, msgspec.Meta(description="Found at the venue, where somebody else put it.")]
    trace_id: str
    submitted_at_ms: answers.EpochMs
    updated_at_ms: answers.EpochMs
    sent_at_ms: answers.EpochMs | None


class OrderPage(msgspec.Struct, kw_only=True):
    """A page of orders, newest first."""

    items: list[OrderAnswer]
    next_cursor: answers.NextCursor


class EventAnswer(msgspec.Struct, kw_only=True, rename={"old": "from"}):
    """One thing that happened to an order."""

    seq: int
    at_ms: answers.EpochMs
    what: str
    old: OrderState | None
    to: OrderState
    detail: dict[str, Any]
    trace_id: str


class EventPage(msgspec.Struct, kw_only=True):
    """What happened to an order, oldest first."""

    items: list[EventAnswer]
    next_cursor: answers.NextCursor


class FillAnswer(msgspec.Struct, kw_only=True):
    """An execution."""

    account: str
    deal: str
    order: Annotated[str | None, msgspec.Meta(description="Null where somebody else's order made it.")]
    venue_order: str
    position: str
    symbol: str
    side: Side
    volume: DecimalText
    price: DecimalText
    profit: Annotated[str, msgspec.Meta(description="Realised by it, in the account's currency.")]
    commission: str
    at_ms: answers.EpochMs


class FillPage(msgspec.Struct, kw_only=True):
    """A page of fills, oldest first."""

    items: list[FillAnswer]
    next_cursor: answers.NextCursor


class PositionAnswer(msgspec.Struct, kw_only=True):
    """A position."""

    account: str
    ticket: str
    symbol: str
    side: Side
    volume: DecimalText
    price_open: DecimalText
    stop_loss: DecimalText | None
    take_profit: DecimalText | None
    order: Annotated[str | None, msgspec.Meta(description="The order that opened it.")]
    opened_at_ms: answers.EpochMs


class PositionPage(msgspec.Struct, kw_only=True):
    """Positions, by account and ticket; there is no further page."""

    items: list[PositionAnswer]
    next_cursor: answers.NextCursor


class StandingAnswer(msgspec.Struct, kw_only=True):
    """How an account stands, as its venue last said; null: it has not said yet."""

    account: str
    venue: str
    currency: str
    leverage: int
    balance: str | None
    equity: str | None
    margin: str | None
    margin_free: str | None
    day_start_equity: str | None
    peak_equity: str | None
    consecutive_rejects: int
    viewed_at_ms: answers.EpochMs | None
    reconciled_at_ms: answers.EpochMs | None


class CanceledOrders(msgspec.Struct, kw_only=True):
    """The orders that were taken back, or are being."""

    items: list[OrderAnswer]
    in_flight: Annotated[
        list[OrderId], msgspec.Meta(description="Just being sent; ask again for these in a moment.")
    ]


class OrderQuery(Message, frozen=True, kw_only=True):
    """One page of orders."""

    cursor: OrderId | None = None
    limit: PageLimit = PAGE_DEFAULT
    account: RecordId | None = None
    symbol: Symbol | None = None
    state: OrderState | None = None
    strategy: answers.FilterText | None = None
    client_order_id: answers.FilterText | None = None


class FillQuery(Message, frozen=True, kw_only=True):
    """One page of fills."""

    cursor: Annotated[str, msgspec.Meta(min_length=1, max_length=CURSOR_LENGTH_MAX)] | None = None
    limit: PageLimit = PAGE_DEFAULT
    account: RecordId | None = None
    symbol: Symbol | None = None
    order: OrderId | None = None


class PositionQuery(Message, frozen=True, kw_only=True):
    """Positions."""

    account: RecordId | None = None


def decimal_of(amount: Any) -> Decimal:
    """Return an amount as the decimal it is written as."""
    return Decimal(str(amount))


def contradiction(wish: OrderWish) -> str:
    """Say what cannot be true of an order's fields together, or nothing."""
    kind = wish.type
    wants = {
        "price": kind in {OrderType.LIMIT, OrderType.STOP_LIMIT},
        "stop_price": kind in {OrderType.STOP, OrderType.STOP_LIMIT},
    }
    for name, wanted in wants.items():
        given = getattr(wish, name) is not None
        if given != wanted:
            return f"a {kind} order {'needs' if wanted else 'has no'} {name}"
    if (wish.time_in_force is TimeInForce.GTD) != (wish.expires_at_ms is not None):
        return "expires_at_ms goes with time_in_force gtd, and with it alone"
    amounts = (wish.volume, wish.price, wish.stop_price, wish.stop_loss, wish.take_profit)
    if any(amount is not None and decimal_of(amount) <= 0 for amount in amounts):
        return "volume and prices are above 0"
    return ""
