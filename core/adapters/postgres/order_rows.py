"""Rows of trading tables as what they mean, and back."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import asyncpg
import msgspec

from core.model.ledger import Command, Fill, Holding, OrderEntry, OutboxRow, Standing
from core.model.orders import Order, OrderState, OrderType, Side, TimeInForce
from core.model.risk import Denial
from core.model.venues import OrderChange, TradingAccount

ASKED: Final = (
    "tenant",
    "id",
    "account",
    "symbol",
    "side",
    "type",
    "time_in_force",
    "volume",
    "price",
    "stop_price",
    "stop_loss",
    "take_profit",
    "expires_at_ms",
    "valid_for_ms",
    "reduce_only",
    "position",
    "client_order_id",
    "strategy",
    "magic",
)
"""Columns that are fields of the order as it was asked for."""
STANDS: Final = (
    "filled_volume",
    "average_price",
    "venue_order",
    "retcode",
    "code",
    "reason",
    "limits_version",
    "margin_needed",
    "notional",
    "submitted_by",
    "external",
    "traceparent",
)
"""Columns that are fields of the entry, as they are."""
_ENTRY: Final = (
    *ASKED,
    *STANDS,
    *("state", "version", "denials", "submitted_at", "updated_at", "sent_at", "absent_since"),
)
ENTRY: Final = ", ".join(_ENTRY)
ENTRY_OF_O: Final = ", ".join(f"o.{name}" for name in _ENTRY)
"""The same of orders called o, where others are joined to them."""
ACCOUNT: Final = (
    "a.tenant, a.id as account_id, a.venue, a.source, a.currency, a.leverage, a.margin_mode,"
    " a.opening_balance, a.login, a.server"
)
BOOK: Final = (
    "b.balance, b.equity, b.margin, b.margin_free, b.notional as notional_held, b.day, b.day_start_equity,"
    " b.peak_equity, b.consecutive_rejects, b.deals_until_ms, b.moves, b.viewed_at, b.reconciled_at"
)
FILL: Final = (
    "account, deal, order_id, venue_order, position, symbol, side, volume, price, profit, commission, at_ms"
)
HOLDING: Final = (
    "account, ticket, symbol, side, volume, price_open, stop_loss, take_profit, order_id, opened_at_ms"
)


def ms(at: datetime | None) -> int | None:
    return None if at is None else round(at.timestamp() * 1_000)


def instant(at_ms: int | None) -> datetime | None:
    return None if at_ms is None else datetime.fromtimestamp(at_ms / 1_000, UTC)


def entry_of(row: asyncpg.Record) -> OrderEntry:
    asked = {name: row[name] for name in ASKED}
    asked |= {
        "side": Side(row["side"]),
        "type": OrderType(row["type"]),
        "time_in_force": TimeInForce(row["time_in_force"]),
        "submitted_at_ms": ms(row["submitted_at"]),
    }
    return OrderEntry(
        order=Order(**asked),
        state=OrderState(row["state"]),
        version=row["version"],
        denials=tuple(msgspec.json.decode(row["denials"], type=list[Denial])),
        updated_at_ms=ms(row["updated_at"]) or 0,
        sent_at_ms=ms(row["sent_at"]),
        absent_since_ms=ms(row["absent_since"]),
        **{name: row[name] for name in STANDS},
    )


def account_of(row: asyncpg.Record) -> TradingAccount:
    return TradingAccount(
        tenant=row["tenant"],
        id=row["account_id"],
        venue=row["venue"],
        source=row["source"],
        currency=row["currency"],
        leverage=row["leverage"],
        hedging=row["margin_mode"] == "hedging",
        opening_balance=Decimal(row["opening_balance"]),
        login=row["login"],
        server=row["server"],
    )


def standing_of(account: TradingAccount, row: asyncpg.Record) -> Standing:
    return Standing(
        account=account,
        balance=row["balance"],
        equity=row["equity"],
        margin=row["margin"],
        margin_free=row["margin_free"],
        notional=row["notional_held"],
        day=row["day"],
        day_start_equity=row["day_start_equity"],
        peak_equity=row["peak_equity"],
        consecutive_rejects=row["consecutive_rejects"] or 0,
        deals_until_ms=row["deals_until_ms"] or 0,
        moves=row["moves"] or 0,
        viewed_at_ms=ms(row["viewed_at"]),
        reconciled_at_ms=ms(row["reconciled_at"]),
    )


def fill_of(row: asyncpg.Record) -> Fill:
    return Fill(**_of_order(row))


def holding_of(row: asyncpg.Record) -> Holding:
    return Holding(**_of_order(row))


def _of_order(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return columns as the fields they are; order_id is the one that goes by another name."""
    fields = {name: value for name, value in row.items() if name != "order_id"}
    return {**fields, "order": row["order_id"], "side": Side(row["side"])}


def outbox_row_of(row: asyncpg.Record) -> OutboxRow:
    command = Command(row["command"])
    change = msgspec.json.decode(row["detail"], type=OrderChange) if command is Command.MODIFY else None
    return OutboxRow(
        id=row["id"],
        tenant=row["tenant"],
        account=row["account"],
        order=row["order_id"],
        command=command,
        change=change,
        tries=row["tries"],
    )


def json_of(value: Any) -> str:
    """Return JSON as asyncpg wants it; decimals are text, so that they stay exact."""
    return msgspec.json.encode(value).decode()
