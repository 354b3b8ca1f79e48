"""Orders for tests: made, asked of a desk or a venue, and looked up in the simulated terminal's truth."""

import secrets
import time
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec

from bridge.connector.simulated_book import STATE_FILE, Book
from core.messages.terminal_orders import CommandKind, TerminalCommand
from core.model.orders import Order, OrderType, Side
from core.model.venues import TradingAccount
from tests.bridges import SOURCE, TENANT

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
ACCOUNT: Final = TradingAccount(
    tenant=TENANT, id="a1", venue="mt5", source=SOURCE, currency="USD", leverage=100, hedging=False
)


def new_tag() -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(26))


def make_order(**changes: Any) -> Order:
    """A market order of a tenth of a lot."""
    fields: dict[str, Any] = {
        "id": new_tag(),
        "tenant": TENANT,
        "account": ACCOUNT.id,
        "symbol": "EURUSD",
        "side": Side.BUY,
        "type": OrderType.MARKET,
        "volume": Decimal("0.10"),
    }
    return Order(**{**fields, **changes})


def make_command(kind: CommandKind = CommandKind.SEND, **changes: Any) -> TerminalCommand:
    fields: dict[str, Any] = {
        "id": secrets.token_hex(8),
        "kind": kind,
        "tenant": TENANT,
        "source": SOURCE,
        "made_at_ms": time.time_ns() // 1_000_000,
        "valid_until_ms": time.time_ns() // 1_000_000 + 30_000,
    }
    if kind is CommandKind.SEND and "order" not in changes:
        fields["order"] = make_order()
    return TerminalCommand(**{**fields, **changes})


def truth(directory: Path) -> Book:
    """What the simulated terminal in `directory` has really done."""
    try:
        return msgspec.json.decode((directory / STATE_FILE).read_bytes(), type=Book)
    except FileNotFoundError:
        return Book(balance=0.0)
