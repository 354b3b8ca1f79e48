"""What one currency is worth in another, by the quotes of the pair between them. Pure."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Final

from core.model.records import Instrument
from core.model.risk import QuoteSeen

ONE: Final = Decimal(1)


def rate_between(
    origin: str, target: str, instruments: Iterable[Instrument], quotes: Mapping[str, QuoteSeen]
) -> Decimal | None:
    """Return how much of `target` one unit of `origin` is, in the middle of the spread; None where nothing tells.

    quotes: the newest by symbol. The pair may be quoted either way round.
    """
    if origin == target:
        return ONE
    for instrument in instruments:
        quote = quotes.get(instrument.symbol)
        if quote is None or quote.bid <= 0 or quote.ask <= 0:
            continue
        middle = (quote.bid + quote.ask) / 2
        if (instrument.base_currency, instrument.profit_currency) == (origin, target):
            return middle
        if (instrument.base_currency, instrument.profit_currency) == (target, origin):
            return ONE / middle
    return None
