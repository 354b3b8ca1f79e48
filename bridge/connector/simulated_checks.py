"""What the simulated broker refuses, and with which retcode: a trade server's checks, as far as we meet them."""

from typing import Final

import msgspec

from bridge.connector.simulated_book import Book
from bridge.connector.simulated_fills import ROUNDING, money_rate
from bridge.connector.terminal import Quote
from bridge.connector.trades import (
    COMMENT_CHARS_MAX,
    FILLING_BITS,
    REQUEST_KEYS,
    Filling,
    Request,
    TradeAction,
    TradeType,
)

LEVERAGE: Final = 100
VOLUME_MIN, VOLUME_MAX, VOLUME_STEP = 0.01, 100.0, 0.01
FILLING_MODES: Final = {"EURUSD": 3, "GBPUSD": 1, "USDJPY": 2}
"""Masks that differ, so that whoever confuses them with the enumeration is refused; of other symbols 3."""


class Fields(msgspec.Struct, frozen=True, kw_only=True):
    """A request, read."""

    action: int
    symbol: str = ""
    volume: float = 0.0
    type: int = 0
    price: float = 0.0
    stoplimit: float = 0.0
    sl: float = 0.0
    tp: float = 0.0
    magic: int = 0
    order: int = 0
    position: int = 0
    type_filling: int = 0
    type_time: int = 0
    expiration: int = 0
    deviation: int = 0
    comment: str = ""


def read(request: Request) -> Fields | None:
    """Return the request, None where the package itself would refuse it."""
    if not set(request) <= REQUEST_KEYS or len(str(request.get("comment", ""))) > COMMENT_CHARS_MAX:
        return None
    try:
        return msgspec.convert(request, Fields)
    except msgspec.ValidationError:
        return None


def verdict(fields: Fields, book: Book, quote: Quote | None, now_ms: int, *, known: bool) -> int:
    """Return the retcode that speaks against a request, 0 where none does. known: whether there is such a symbol."""
    if fields.action in (TradeAction.REMOVE, TradeAction.MODIFY):
        return 0 if any(one.ticket == fields.order for one in book.orders) else 10_013
    if fields.action == TradeAction.SLTP:
        return 0 if book.position(fields.position) is not None else 10_036
    if quote is None:
        return 10_021 if known else 10_013
    if fields.expiration and fields.expiration * 1_000 <= now_ms:
        return 10_022
    return (
        _bad_volume(fields, book)
        or _bad_filling(fields)
        or _bad_price(fields, quote)
        or _too_little_money(fields, book, quote)
    )


def filling_mode(symbol: str) -> int:
    """Return a symbol's mask."""
    return FILLING_MODES.get(symbol, 3)


def _bad_volume(fields: Fields, book: Book) -> int:
    steps = fields.volume / VOLUME_STEP
    if not VOLUME_MIN <= fields.volume <= VOLUME_MAX or abs(steps - round(steps)) > ROUNDING:
        return 10_014
    if not fields.position:
        return 0
    held = book.position(fields.position)
    if held is None:
        return 10_036
    return 10_038 if fields.volume > held.volume + ROUNDING else 0


def _bad_filling(fields: Fields) -> int:
    if fields.action == TradeAction.PENDING:
        return 0 if fields.type_filling == Filling.RETURN else 10_030
    bits = {filling.value: bit for filling, bit in FILLING_BITS.items()}
    return 0 if filling_mode(fields.symbol) & bits.get(fields.type_filling, 0) else 10_030


def _bad_price(fields: Fields, quote: Quote) -> int:
    buys = fields.type % 2 == 0
    if fields.action == TradeAction.PENDING:
        limit = fields.type in (TradeType.BUY_LIMIT, TradeType.SELL_LIMIT)
        ahead = fields.price - quote.ask if buys else quote.bid - fields.price
        if not fields.price or (ahead >= 0 if limit else ahead <= 0):
            return 10_015
    entry, sign = _entry(fields, quote), 1 if buys else -1
    lost = fields.sl and (entry - fields.sl) * sign <= 0
    won = fields.tp and (fields.tp - entry) * sign <= 0
    return 10_016 if lost or won else 0


def _too_little_money(fields: Fields, book: Book, quote: Quote) -> int:
    entry = _entry(fields, quote)
    needed = fields.volume * money_rate(fields.symbol, entry) * entry / LEVERAGE
    return 10_019 if not fields.position and needed > book.balance else 0


def _entry(fields: Fields, quote: Quote) -> float:
    return fields.price or (quote.ask if fields.type % 2 == 0 else quote.bid)
