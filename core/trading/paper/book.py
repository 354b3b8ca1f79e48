"""A paper account: its working orders, positions and balance. Plain data; what changes it is in `fills`."""

from dataclasses import dataclass, field
from decimal import Decimal

from core.model.orders import OrderType, Side, TimeInForce
from core.model.risk import InstrumentTerms, QuoteSeen
from core.model.venues import Deal, VenueOrder


@dataclass(slots=True, kw_only=True)
class PaperOrder:
    """A working order. left: lots not filled yet; due_ms: it meets no quote before; triggered: its stop was reached.

    reduce_only: it makes a position smaller or ends, as one does that names the position it closes. met: the quote that
    filled a part of it last, and fills no more of it.
    """

    ticket: str
    tag: str
    symbol: str
    side: Side
    type: OrderType
    time_in_force: TimeInForce
    volume: Decimal
    left: Decimal
    price: Decimal | None
    stop_price: Decimal | None
    stop_loss: Decimal | None
    take_profit: Decimal | None
    expires_at_ms: int | None
    position: str
    reduce_only: bool
    due_ms: int
    at_ms: int
    triggered: bool = False
    met: QuoteSeen | None = None


@dataclass(slots=True, kw_only=True)
class PaperPosition:
    """An open position."""

    ticket: str
    tag: str
    symbol: str
    side: Side
    volume: Decimal
    price_open: Decimal
    stop_loss: Decimal | None
    take_profit: Decimal | None
    at_ms: int


@dataclass(slots=True, kw_only=True)
class PaperBook:
    """An account. balance: what was put in and what was realised. next_ticket: counts orders, deals and positions."""

    balance: Decimal
    orders: list[PaperOrder] = field(default_factory=list)
    positions: list[PaperPosition] = field(default_factory=list)
    next_ticket: int = 1

    def ticket(self) -> str:
        number = self.next_ticket
        self.next_ticket += 1
        return str(number)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperModels:
    """How orders meet quotes. slippage_ticks: a market or stop order fills worse by up to so many ticks, drawn by seed
    and tag; latency_ms: between being taken and meeting a quote, latency_spread_ms: up to so much longer, drawn alike;
    lots_per_quote: one quote fills no more of one order, None: any volume. quote_age_ms_max: an older quote fills
    nothing.
    """

    seed: int = 0
    slippage_ticks: int = 0
    latency_ms: int = 0
    latency_spread_ms: int = 0
    lots_per_quote: Decimal | None = None
    quote_age_ms_max: int = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """The market as orders meet it, by symbol. rates: what its currency is worth in the account's."""

    at_ms: int
    quotes: dict[str, QuoteSeen]
    terms: dict[str, InstrumentTerms]
    rates: dict[str, Decimal]

    def quote(self, symbol: str, age_ms_max: int) -> QuoteSeen | None:
        """Return the newest quote, if it is fresh."""
        quote = self.quotes.get(symbol)
        return quote if quote is not None and self.at_ms - quote.time_ms <= age_ms_max else None

    def known(self, symbol: str) -> bool:
        """Whether everything is known that a deal in the symbol needs."""
        return symbol in self.terms and symbol in self.rates


@dataclass(slots=True, kw_only=True)
class Happened:
    """What a step did: deals in their order, and orders that ended."""

    deals: list[Deal] = field(default_factory=list)
    ended: list[VenueOrder] = field(default_factory=list)
