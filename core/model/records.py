"""Records: what callers keep with us under names of their own, and in which store each kind lives.

Every write names the version it makes. A write that is tried again, because its worker died, finds its own version
and knows that its work is done.
"""

from dataclasses import dataclass
from decimal import Decimal as Number
from enum import StrEnum
from typing import Annotated, Final, Generic, Literal, TypeVar

import msgspec

from core.model.principals import Scope

ID_PATTERN: Final = r"^[A-Za-z0-9_$#.+!@^=-]{1,64}$"
CURRENCY_PATTERN: Final = "^[A-Z][A-Z0-9]{2,7}$"
DECIMAL_PATTERN: Final = r"^([1-9][0-9]{0,11}(\.[0-9]{1,12})?|0\.0{0,9}[1-9][0-9]{0,9})$"
SYMBOLS_MAX: Final = 500
CLOSES_MIN: Final = 8
CLOSES_MAX: Final = 1_024

RecordId = Annotated[
    str,
    msgspec.Meta(description="Its name within the tenant and kind.", pattern=ID_PATTERN, examples=["eurusd"]),
]
Title = Annotated[str, msgspec.Meta(min_length=1, max_length=120, pattern=r"^[^\x00-\x1f\x7f]+$")]
Text = Annotated[str, msgspec.Meta(max_length=4_000, pattern=r"^[^\x00]*$")]
Word = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[^\x00-\x20\x7f]+$")]
Currency = Annotated[str, msgspec.Meta(pattern=CURRENCY_PATTERN, examples=["USD"])]
Decimal = Annotated[
    str,
    msgspec.Meta(
        description="A decimal number above 0 as text, exact.",
        pattern=DECIMAL_PATTERN,
        examples=["0.01"],
    ),
]
EpochMs = Annotated[
    int,
    msgspec.Meta(
        description="UTC epoch milliseconds.", ge=0, le=253_402_300_799_999, examples=[1_790_000_000_000]
    ),
]
Price = Annotated[float, msgspec.Meta(gt=0, le=1e15)]


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a caller writes of a record; all of it, each time."""

    def contradiction(self) -> str:
        """Say what cannot be true of the fields together, or nothing."""
        return ""


class Account(Body, frozen=True, kw_only=True):
    """A trading account at a broker. leverage: 100 stands for 1:100.

    venue: who executes its orders, `none` where nobody does. `paper` fills them from the quotes of its source, `mt5` is
    the terminal of its source. opening_balance: on paper.
    """

    title: Title
    login: Annotated[int, msgspec.Meta(ge=1, le=2**53)]
    server: Word
    currency: Currency
    leverage: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 100
    trade_mode: Literal["demo", "contest", "real"] = "demo"
    margin_mode: Literal["netting", "hedging", "exchange"] = "hedging"
    venue: Literal["none", "paper", "mt5"] = "none"
    source: Annotated[str, msgspec.Meta(max_length=63, pattern=r"^[^\x00-\x20\x7f]*$")] = ""
    opening_balance: Decimal = "100000"

    def contradiction(self) -> str:
        return "an account with a venue names its source" if self.venue != "none" and not self.source else ""


class Instrument(Body, frozen=True, kw_only=True):
    """What a symbol is: how its price and volume are counted. tick_size, contract_size, volume_*: as in MT5."""

    symbol: Word
    description: Text = ""
    base_currency: Currency
    profit_currency: Currency
    margin_currency: Currency
    digits: Annotated[int, msgspec.Meta(ge=0, le=12)]
    tick_size: Decimal
    contract_size: Decimal
    volume_min: Decimal
    volume_max: Decimal
    volume_step: Decimal

    def contradiction(self) -> str:
        return "volume_max is below volume_min" if Number(self.volume_max) < Number(self.volume_min) else ""


class Annotation(Body, frozen=True, kw_only=True):
    """A mark on the market: a piece of news, a session, something odd. stop_ms: its last moment, where it lasts."""

    symbol: Word
    start_ms: EpochMs
    stop_ms: EpochMs | None = None
    label: Word
    text: Text = ""

    def contradiction(self) -> str:
        ends_before = self.stop_ms is not None and self.stop_ms < self.start_ms
        return "stop_ms is before start_ms" if ends_before else ""


class Watchlist(Body, frozen=True, kw_only=True):
    """Symbols somebody looks at together. It is forgotten 90 days after it was last written."""

    title: Title
    symbols: Annotated[list[Word], msgspec.Meta(min_length=1, max_length=SYMBOLS_MAX)]


class Incident(Body, frozen=True, kw_only=True):
    """A failure somebody looked into. fingerprint: of its ErrorDNA; resolution: what ended it."""

    message: Annotated[str, msgspec.Meta(min_length=1, max_length=4_000, pattern=r"^[^\x00]+$")]
    service: Word
    category: Word
    fingerprint: Annotated[str, msgspec.Meta(max_length=64, pattern=r"^[0-9a-f]*$")] = ""
    at_ms: EpochMs
    resolution: Text = ""


class MarketWindow(Body, frozen=True, kw_only=True):
    """A stretch of market worth finding again. closes: of consecutive bars, oldest first."""

    symbol: Word
    interval: Word
    start_ms: EpochMs
    label: Word
    closes: Annotated[list[Price], msgspec.Meta(min_length=CLOSES_MIN, max_length=CLOSES_MAX)]


class Service(Body, frozen=True, kw_only=True):
    """Something that runs or stores: a node of the topology."""

    title: Title
    sort: Literal["process", "store", "external"]
    critical: bool = False


class Flow(Body, frozen=True, kw_only=True):
    """What goes from one service to another. origin, target: ids of services. If target fails, origin feels it."""

    origin: RecordId
    target: RecordId
    sort: Literal["calls", "reads", "writes", "publishes", "consumes"]
    required: bool = True

    def contradiction(self) -> str:
        return "a flow leads from one service to another" if self.origin == self.target else ""


Read = TypeVar("Read", bound=Body)


class RecordKind(StrEnum):
    """Every kind of record, by the name its route has."""

    ACCOUNTS = "accounts"
    INSTRUMENTS = "instruments"
    ANNOTATIONS = "annotations"
    WATCHLISTS = "watchlists"
    INCIDENTS = "incidents"
    MARKET_WINDOWS = "market-windows"
    SERVICES = "services"
    FLOWS = "flows"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record(Generic[Read]):
    """A record as it is stored. version: what an update or deletion names as the one it means."""

    id: str
    version: str
    created_at_ms: int
    updated_at_ms: int
    body: Read


class Deed(StrEnum):
    """What can be done to records, by the name its job has."""

    CREATE = "create"
    READ = "read"
    PAGE = "page"
    UPDATE = "update"
    DELETE = "delete"


WRITING: Final = frozenset({Deed.CREATE, Deed.UPDATE, Deed.DELETE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """Where a kind lives. keeper: the hub's name for the `Records` that keep it; filters: fields a list may ask for;
    read, write: what its callers must be allowed.
    """

    body: type[Body]
    keeper: str
    read: Scope
    write: Scope
    filters: tuple[str, ...] = ()


def _shelf(body: type[Body], keeper: str, area: str, *filters: str) -> Shelf:
    return Shelf(
        body=body, keeper=keeper, read=Scope(f"{area}:read"), write=Scope(f"{area}:write"), filters=filters
    )


SHELVES: Final[dict[RecordKind, Shelf]] = {
    RecordKind.ACCOUNTS: _shelf(Account, "ledger_records", "accounts", "server"),
    RecordKind.INSTRUMENTS: _shelf(Instrument, "ledger_records", "market", "symbol"),
    RecordKind.ANNOTATIONS: _shelf(Annotation, "tick_records", "market", "symbol", "label"),
    RecordKind.WATCHLISTS: _shelf(Watchlist, "brief_records", "market"),
    RecordKind.INCIDENTS: _shelf(Incident, "similarity", "incidents", "service", "category"),
    RecordKind.MARKET_WINDOWS: _shelf(MarketWindow, "similarity", "market", "symbol", "label"),
    RecordKind.SERVICES: _shelf(Service, "topology", "topology", "sort"),
    RecordKind.FLOWS: _shelf(Flow, "topology", "topology", "origin", "target"),
}
assert set(SHELVES) == set(RecordKind), "every kind has its shelf"
