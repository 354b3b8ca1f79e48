"""What is asked of trading, and how what it keeps is written: decimals as text, times as UTC epoch ms."""

from decimal import Decimal
from typing import Annotated, Any, Final

import msgspec

from core.messages.message import Message
from core.messages.records import PAGE_DEFAULT, PageLimit
from core.model.ledger import Command, Fill, Holding, OrderEntry, OrderEvent, Standing
from core.model.orders import OrderState
from core.model.records import RecordId

ORDER_ID_PATTERN: Final = "^[0-9A-HJKMNP-TV-Z]{26}$"
OrderId = Annotated[
    str,
    msgspec.Meta(
        description="A ULID; later orders have greater ones.",
        pattern=ORDER_ID_PATTERN,
        examples=["01J9ZQ3X5T8W2K4M6N7P8R9S0T"],
    ),
]
Symbol = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[^\x00-\x20\x7f]+$")]
Tag = Annotated[str, msgspec.Meta(max_length=64, pattern=r"^[^\x00-\x1f\x7f]*$")]
CURSOR_LENGTH_MAX: Final = 256
TOLD_DIGITS: Final = 12
"""Behind the point: as many as a caller may give."""


class OrderHint(Message, frozen=True, kw_only=True):
    """There is something to be done about an order. Whoever misses it comes to know from the outbox.

    command: what it is, where that is known; the outbox knows it in any case.
    """

    order: OrderId
    command: Command | None = None


class OrderQuestion(Message, frozen=True, kw_only=True):
    """One order, or what happened to it."""

    id: OrderId


class OrderPageQuestion(Message, frozen=True, kw_only=True):
    """Orders, newest first. before: the last id of the page before."""

    before: OrderId | None = None
    limit: PageLimit = PAGE_DEFAULT
    where: dict[str, str]


class FillPageQuestion(Message, frozen=True, kw_only=True):
    """Fills, oldest first. after: where the page before ended."""

    after: Annotated[str, msgspec.Meta(max_length=CURSOR_LENGTH_MAX)] | None = None
    limit: PageLimit = PAGE_DEFAULT
    where: dict[str, str]


class PositionQuestion(Message, frozen=True, kw_only=True):
    """Positions of one account, or of all."""

    account: RecordId | None = None


class StandingQuestion(Message, frozen=True, kw_only=True):
    """How an account stands."""

    id: RecordId


QUESTIONS: Final[dict[str, type[Message]]] = {
    "orders.read": OrderQuestion,
    "orders.page": OrderPageQuestion,
    "orders.events": OrderQuestion,
    "fills.page": FillPageQuestion,
    "positions.list": PositionQuestion,
    "accounts.standing": StandingQuestion,
}


def order_fields(entry: OrderEntry) -> dict[str, Any]:
    """Return an order as it is told."""
    order = entry.order
    return {
        "id": order.id,
        "state": entry.state,
        "version": entry.version,
        "account": order.account,
        "symbol": order.symbol,
        "side": order.side,
        "type": order.type,
        "time_in_force": order.time_in_force,
        "volume": text(order.volume),
        "filled_volume": text(entry.filled_volume),
        "average_price": text(entry.average_price),
        "price": text(order.price),
        "stop_price": text(order.stop_price),
        "stop_loss": text(order.stop_loss),
        "take_profit": text(order.take_profit),
        "expires_at_ms": order.expires_at_ms,
        "valid_for_ms": order.valid_for_ms,
        "reduce_only": order.reduce_only,
        "position": order.position,
        "client_order_id": order.client_order_id,
        "strategy": order.strategy,
        "venue_order": entry.venue_order,
        "retcode": entry.retcode,
        "code": entry.code,
        "reason": entry.reason,
        "denials": [
            {"check": d.check, "code": d.code, "reason": d.reason, "numbers": d.numbers}
            for d in entry.denials
        ],
        "limits_version": entry.limits_version,
        "submitted_by": entry.submitted_by,
        "external": entry.external,
        "trace_id": entry.traceparent[3:35],
        "submitted_at_ms": order.submitted_at_ms,
        "updated_at_ms": entry.updated_at_ms,
        "sent_at_ms": entry.sent_at_ms,
    }


def event_fields(event: OrderEvent) -> dict[str, Any]:
    """Return an event of an order as it is told."""
    return {
        "seq": event.seq,
        "at_ms": event.at_ms,
        "what": event.what,
        "from": None if event.old_state is OrderState.CREATED else event.old_state,
        "to": event.new_state,
        "detail": event.detail,
        "trace_id": event.traceparent[3:35],
    }


def fill_fields(fill: Fill) -> dict[str, Any]:
    """Return a fill as it is told."""
    return {
        "account": fill.account,
        "deal": fill.deal,
        "order": fill.order,
        "venue_order": fill.venue_order,
        "position": fill.position,
        "symbol": fill.symbol,
        "side": fill.side,
        "volume": text(fill.volume),
        "price": text(fill.price),
        "profit": text(fill.profit),
        "commission": text(fill.commission),
        "at_ms": fill.at_ms,
    }


def holding_fields(holding: Holding) -> dict[str, Any]:
    """Return a position as it is told."""
    return {
        "account": holding.account,
        "ticket": holding.ticket,
        "symbol": holding.symbol,
        "side": holding.side,
        "volume": text(holding.volume),
        "price_open": text(holding.price_open),
        "stop_loss": text(holding.stop_loss),
        "take_profit": text(holding.take_profit),
        "order": holding.order or None,
        "opened_at_ms": holding.opened_at_ms,
    }


def standing_fields(standing: Standing) -> dict[str, Any]:
    """Return how an account stands as it is told."""
    account = standing.account
    return {
        "account": account.id,
        "venue": account.venue,
        "currency": account.currency,
        "leverage": account.leverage,
        "balance": text(standing.balance),
        "equity": text(standing.equity),
        "margin": text(standing.margin),
        "margin_free": text(standing.margin_free),
        "day_start_equity": text(standing.day_start_equity),
        "peak_equity": text(standing.peak_equity),
        "consecutive_rejects": standing.consecutive_rejects,
        "viewed_at_ms": standing.viewed_at_ms,
        "reconciled_at_ms": standing.reconciled_at_ms,
    }


def text(value: Decimal | None) -> str | None:
    """Return a decimal as text: no exponent, no zeros nobody needs, of an average no digits nobody could ask for."""
    if value is None:
        return None
    plain = f"{value:.{TOLD_DIGITS}f}"
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def cursor_of(fill: Fill) -> str:
    """Return where a page of fills ended."""
    return f"{fill.at_ms}/{fill.account}/{fill.deal}"


def after_of(cursor: str | None) -> tuple[int, str, str] | None:
    """Return what a cursor says. Raises: ValueError: it is none of ours."""
    if cursor is None:
        return None
    at_ms, account, deal = cursor.split("/", 2)
    return int(at_ms), account, deal
