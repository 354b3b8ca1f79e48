"""Bodies to fill records with, and the places a keeper can be tested at."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from core.model.records import (
    SHELVES,
    Account,
    Annotation,
    Body,
    Flow,
    Incident,
    Instrument,
    MarketWindow,
    RecordKind,
    Service,
    Watchlist,
)
from core.settings import Settings
from tests import topology_servers
from tests.weaviate_servers import with_double

DAY_MS = 86_400_000


@dataclass(frozen=True)
class Keeper:
    """A keeper of records at one place. at: changes settings so that the hub opens this one, None as they are."""

    name: str
    service: str
    at: Callable[[Settings], AbstractAsyncContextManager[Settings]] | None = None

    def __str__(self) -> str:
        return self.name


KEEPERS: list[Keeper] = [
    # What the hub opens by default; servers that have a stand-in are added below, each with its double.
    *(
        Keeper(name=service, service=service)
        for service in dict.fromkeys(shelf.keeper for shelf in SHELVES.values())
    ),
    Keeper(name="weaviate-double", service="similarity", at=with_double),
    Keeper(name="arango-double", service="topology", at=topology_servers.with_double),
]
CASES = [
    (keeper, kind)
    for keeper in KEEPERS
    for kind, shelf in SHELVES.items()
    if shelf.keeper == keeper.service and kind is not RecordKind.FLOWS
]
"""Flows need services at their ends; their own tests make them."""


def body_of(kind: RecordKind, number: int = 0, word: str = "") -> Body:
    """Return a body of this kind, another for each number. word: what all its filters look for."""
    return _MAKERS[kind](number, word)


_MAKERS: dict[RecordKind, Callable[[int, str], Body]] = {
    RecordKind.ACCOUNTS: lambda number, word: Account(
        title=f'Konto № {number} "a"', login=7_000_000_000 + number, server=word or "Demo-1", currency="EUR"
    ),
    RecordKind.INSTRUMENTS: lambda number, word: Instrument(
        symbol=word or "EURUSD",
        description=f"Euro ' \\ \n {number}",
        base_currency="EUR",
        profit_currency="USD",
        margin_currency="EUR",
        digits=5,
        tick_size="0.00001",
        contract_size="100000.0",
        volume_min="0.010",
        volume_max="500",
        volume_step="0.01",
    ),
    RecordKind.ANNOTATIONS: lambda number, word: Annotation(
        symbol=word or "EURUSD",
        start_ms=20_000 * DAY_MS + number,
        stop_ms=None if number % 2 else 20_001 * DAY_MS,
        label=word or "news",
        text=f"Überraschung\t№ {number}",
    ),
    RecordKind.WATCHLISTS: lambda number, word: Watchlist(
        title=f"Liste {number}", symbols=[word or "EURUSD", f"X{number}"]
    ),
    RecordKind.INCIDENTS: lambda number, word: Incident(
        message=f"the ledger did not answer within {number} ms",
        service=word or "worker-database",
        category=word or "UNAVAILABLE",
        fingerprint=f"{number:08x}",
        at_ms=20_000 * DAY_MS + number,
        resolution="",
    ),
    RecordKind.MARKET_WINDOWS: lambda number, word: MarketWindow(
        symbol=word or "EURUSD",
        interval="1m",
        start_ms=20_000 * DAY_MS + number,
        label=word or "breakout",
        closes=[1.1 + 0.001 * ((step * (number + 3)) % 7) for step in range(16)],
    ),
    RecordKind.SERVICES: lambda number, word: Service(title=f"Service {number}", sort="process"),
    RecordKind.FLOWS: lambda number, word: Flow(
        origin="a", target="b", sort="reads" if number % 2 else "calls", required=number % 3 == 0
    ),
}
