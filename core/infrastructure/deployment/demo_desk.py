"""What a demo trades with: an account on paper, one at the simulated terminal, and the symbols it has."""

import uuid
from typing import Final, Literal

from core.errors.exceptions import Conflict
from core.infrastructure.central_hub import open_hub
from core.model.records import Account, Body, Instrument, RecordKind
from core.settings import Settings

PAPER: Final = "paper"
TERMINAL: Final = "terminal"
_SYMBOLS: Final = (
    # symbol, digits, contract size
    ("EURUSD", 5, "100000"),
    ("GBPUSD", 5, "100000"),
    ("USDJPY", 3, "100000"),
    ("AUDUSD", 5, "100000"),
    ("USDCHF", 5, "100000"),
    ("XAUUSD", 2, "100"),
)


async def provision_demo_desk(settings: Settings, tenant: str, source: str) -> None:
    """Keep the demo's accounts and instruments, unless there are such already: they are the tenant's to change.

    Raises: Unavailable.
    """
    bodies: list[tuple[RecordKind, str, Body]] = [
        (RecordKind.ACCOUNTS, PAPER, _account("Paper account of the demo", "paper", source)),
        (RecordKind.ACCOUNTS, TERMINAL, _account("Account at the simulated terminal", "mt5", source)),
    ]
    bodies += [
        (RecordKind.INSTRUMENTS, symbol.lower(), _instrument(symbol, digits, size))
        for symbol, digits, size in _SYMBOLS
    ]
    async with open_hub(settings, {"ledger_records"}) as hub:
        for kind, record_id, body in bodies:
            try:
                await hub["ledger_records"].create(kind, tenant, record_id, body, version=uuid.uuid4().hex)
            except Conflict:
                continue


def _account(title: str, venue: Literal["paper", "mt5"], source: str) -> Account:
    return Account(
        title=title,
        login=1,
        server=f"demo-{venue}",
        currency="USD",
        leverage=100,
        margin_mode="netting",
        venue=venue,
        source=source,
        opening_balance="100000",
    )


def _instrument(symbol: str, digits: int, contract_size: str) -> Instrument:
    return Instrument(
        symbol=symbol,
        base_currency=symbol[:3],
        profit_currency=symbol[3:],
        margin_currency=symbol[:3],
        digits=digits,
        tick_size=f"{10**-digits:.{digits}f}",
        contract_size=contract_size,
        volume_min="0.01",
        volume_max="100",
        volume_step="0.01",
    )
