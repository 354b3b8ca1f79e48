"""What the paper venue refuses, and what an account is worth there. Pure."""

from decimal import Decimal

from core.model.orders import Order, OrderState, OrderType
from core.model.venues import TradingAccount, VenueReport
from core.trading.market import Market
from core.trading.paper.book import Floor, PaperBook, PaperModels


def refusal_of(
    account: TradingAccount, book: PaperBook, order: Order, floor: Floor, models: PaperModels
) -> VenueReport | None:
    """Return why an order is not taken; None where it is."""
    if not floor.known(order.symbol):
        return _no("SYMBOL_UNKNOWN", "nothing is known of this symbol here")
    if order.type is OrderType.MARKET and floor.quote(order.symbol, models.quote_age_ms_max) is None:
        return _no("MARKET_CLOSED", "there is no fresh quote")
    terms = floor.terms[order.symbol]
    if not terms.volume_min <= order.volume <= terms.volume_max or order.volume % terms.volume_step:
        return _no("VOLUME_INVALID", "no such volume is taken")
    if order.position and all(one.ticket != order.position for one in book.positions):
        return _no("POSITION_CLOSED", "there is no such position")
    return _without_money(account, book, order, floor)


def worth(account: TradingAccount, book: PaperBook, floor: Floor) -> tuple[Decimal | None, Decimal | None]:
    """Return equity and margin in use; None where a quote is missing."""
    equity, margin = book.balance, Decimal(0)
    for held in book.positions:
        quote = floor.quotes.get(held.symbol)
        if quote is None or not floor.known(held.symbol):
            return None, None
        size = floor.terms[held.symbol].contract_size * floor.rates[held.symbol] * held.volume
        leaving = quote.bid if held.side.sign > 0 else quote.ask
        equity += (leaving - held.price_open) * held.side.sign * size
        margin += held.price_open * size / account.leverage
    return equity, margin


def _without_money(
    account: TradingAccount, book: PaperBook, order: Order, floor: Floor
) -> VenueReport | None:
    if order.reduce_only or order.position:
        return None
    equity, margin = worth(account, book, floor)
    market = Market(
        terms=floor.terms[order.symbol],
        quote=floor.quotes.get(order.symbol),
        rate=floor.rates[order.symbol],
    )
    needed = market.margin(order, account.leverage)
    if equity is None or margin is None or needed is None or needed > equity - margin:
        return _no("NO_MONEY", "the order needs more margin than is free")
    return None


def _no(code: str, reason: str) -> VenueReport:
    return VenueReport(state=OrderState.REJECTED, code=code, reason=reason)
