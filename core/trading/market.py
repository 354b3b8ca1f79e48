"""The market as an order meets it: the venue's terms for its symbol, the newest quote, what its currency is worth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

import msgspec

from core.errors.exceptions import Unavailable
from core.model.ledger import Listing
from core.model.orders import Order, Side
from core.model.records import Instrument
from core.model.risk import InstrumentTerms, QuoteSeen
from core.trading.rates import rate_between


class Quotes(Protocol):
    """The newest quotes, as `core.ports.ticks.LatestQuotes` has them."""

    async def get(self, source: str, symbols: Sequence[str] | None) -> Mapping[str, bytes]:
        """Return JSON by symbol."""


class _Quote(msgspec.Struct):
    """What of a kept quote is needed here."""

    bid: float
    ask: float
    utc_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """What an order meets. rate: of the symbol's currency in the account's; None: not known, and denies."""

    terms: InstrumentTerms | None
    quote: QuoteSeen | None
    rate: Decimal | None

    def notional(self, order: Order) -> Decimal | None:
        """Return what the order is worth in the account's currency."""
        if self.terms is None or self.quote is None or self.rate is None:
            return None
        market = self.quote.ask if order.side is Side.BUY else self.quote.bid
        price = order.price or order.stop_price or market
        return order.volume * self.terms.contract_size * price * self.rate

    def margin(self, order: Order, leverage: int) -> Decimal | None:
        """Return what of the account's margin the order needs: its worth, borrowed."""
        notional = self.notional(order)
        return None if notional is None else notional / leverage


async def market_of(symbol: str, listing: Listing, quotes: Quotes) -> Market:
    """Return what an order for `symbol` meets. What cannot be had now is None."""
    return (await markets_of([symbol], listing, quotes))[symbol]


async def markets_of(symbols: Sequence[str], listing: Listing, quotes: Quotes) -> dict[str, Market]:
    """Return what orders for `symbols` meet; all their quotes are asked for at once."""
    account = listing.account
    seen: Mapping[str, QuoteSeen] = {}
    if account is not None and listing.reachable:
        asked = sorted({*symbols, *(one.symbol for one in listing.instruments)})
        seen = await quotes_of(account.source, asked, quotes) if asked else {}
    return {symbol: _market(symbol, listing, seen) for symbol in symbols}


async def quotes_of(source: str, symbols: Sequence[str], quotes: Quotes) -> dict[str, QuoteSeen]:
    """Return the newest quotes there are of `symbols`; none while nobody can say."""
    try:
        found = await quotes.get(source, symbols)
    except Unavailable:
        return {}
    return {symbol: _seen(quote) for symbol, quote in found.items()}


def terms_of(instrument: Instrument) -> InstrumentTerms:
    """Return a venue's terms as its instrument's record has them."""
    return InstrumentTerms(
        tradable=True,
        session_open=True,
        tick_size=Decimal(instrument.tick_size),
        contract_size=Decimal(instrument.contract_size),
        volume_min=Decimal(instrument.volume_min),
        volume_max=Decimal(instrument.volume_max),
        volume_step=Decimal(instrument.volume_step),
    )


def _market(symbol: str, listing: Listing, seen: Mapping[str, QuoteSeen]) -> Market:
    account, instruments = listing.account, listing.instruments
    own = next((one for one in instruments if one.symbol == symbol), None)
    if own is None:
        return Market(terms=None, quote=seen.get(symbol), rate=None)
    rate: Decimal | None = None
    if account is not None and listing.reachable:
        rate = rate_between(own.profit_currency, account.currency, instruments, seen)
    return Market(terms=terms_of(own), quote=seen.get(symbol), rate=rate)


def _seen(text: Any) -> QuoteSeen:
    quote = msgspec.json.decode(text, type=_Quote)
    # The shortest text of a float is the price as it was quoted. A quote of an unknown time is infinitely old.
    return QuoteSeen(bid=Decimal(str(quote.bid)), ask=Decimal(str(quote.ask)), time_ms=quote.utc_ms or 0)
