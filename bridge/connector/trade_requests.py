"""An order as the terminal wants it: the request that is sent, or the reason why none is. Pure.

Nothing is rounded: a volume or price that does not fit the symbol is refused here, because what would be sent instead
is not what was asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, TypeVar

from bridge.connector.terminal import AccountInfo, Quote, SymbolInfo
from bridge.connector.trades import (
    COMMENT_CHARS_MAX,
    EXPIRATION_BITS,
    FILLING_BITS,
    HEDGING_MARGIN_MODE,
    MAGIC_MAX,
    Execution,
    Filling,
    OpenPosition,
    PlacedOrder,
    Request,
    TradeAction,
    TradeType,
    TypeTime,
)
from core.errors.exceptions import Invalid
from core.model import ledger
from core.model.orders import Order, OrderType, Side, TimeInForce
from core.model.ticks import UTC_OFFSET_UNKNOWN
from core.model.venues import OrderChange

TICKET_DIGITS_MAX: Final = 19
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the terminal says of an order's surroundings. positions: open in its symbol; utc_offset_s: of its clock."""

    account: AccountInfo
    symbol: SymbolInfo
    quote: Quote
    positions: tuple[OpenPosition, ...]
    utc_offset_s: int


_TYPES: Final = {
    (OrderType.MARKET, Side.BUY): TradeType.BUY,
    (OrderType.MARKET, Side.SELL): TradeType.SELL,
    (OrderType.LIMIT, Side.BUY): TradeType.BUY_LIMIT,
    (OrderType.LIMIT, Side.SELL): TradeType.SELL_LIMIT,
    (OrderType.STOP, Side.BUY): TradeType.BUY_STOP,
    (OrderType.STOP, Side.SELL): TradeType.SELL_STOP,
    (OrderType.STOP_LIMIT, Side.BUY): TradeType.BUY_STOP_LIMIT,
    (OrderType.STOP_LIMIT, Side.SELL): TradeType.SELL_STOP_LIMIT,
}
_AT_ONCE: Final = {TimeInForce.IOC: Filling.IOC, TimeInForce.FOK: Filling.FOK}
_TIMES: Final = {
    TimeInForce.GTC: TypeTime.GTC,
    TimeInForce.DAY: TypeTime.DAY,
    TimeInForce.GTD: TypeTime.SPECIFIED,
}


def send_requests(order: Order, facts: Facts, deviation_points: int) -> Sequence[Request]:
    """Return requests that all mean the order, the preferred one first; they differ in `type_filling`.

    Raises: Invalid, saying what does not fit.
    """
    _require_volume(order.volume, facts.symbol)
    _require_reduction(order, facts)
    request: Request = {
        "action": int(TradeAction.PENDING if order.is_passive else TradeAction.DEAL),
        "symbol": _name(order.symbol),
        "volume": float(order.volume),
        "type": int(_TYPES[order.type, order.side]),
        "magic": magic_of(order),
        "comment": _comment(order.id),
    }
    if order.is_passive:
        request |= _resting(order, facts)
    else:
        request["price"] = _market(order.side, facts.quote)
        request["deviation"] = deviation_points
        request["type_time"] = int(TypeTime.GTC)
    request |= _levels(order.stop_loss, order.take_profit, facts.symbol)
    if order.position:
        # On a hedging account a deal without it would open a second position instead of closing this one.
        request["position"] = ticket_of(order.position)
    return [{**request, "type_filling": int(filling)} for filling in _fillings(order, facts.symbol)]


def remove_request(ticket: int) -> Request:
    """Return what takes a working order back."""
    return {"action": int(TradeAction.REMOVE), "order": ticket}


def modify_request(working: PlacedOrder, change: OrderChange, symbol: SymbolInfo) -> Request:
    """Return what changes a working order; what is not to change is repeated. Raises: Invalid."""
    if change.volume is not None and change.volume != Decimal(str(working.volume_current)):
        raise Invalid("MetaTrader changes no order's volume", code="VOLUME_UNCHANGEABLE")
    has_limit = working.type in (TradeType.BUY_STOP_LIMIT, TradeType.SELL_STOP_LIMIT)
    is_limit = working.type in (TradeType.BUY_LIMIT, TradeType.SELL_LIMIT)
    trigger = change.price if is_limit else change.stop_price
    request: Request = {
        "action": int(TradeAction.MODIFY),
        "order": working.ticket,
        "symbol": working.symbol,
        "price": working.price_open if trigger is None else _price(trigger, symbol),
        "sl": working.sl if change.stop_loss is None else _price(change.stop_loss, symbol),
        "tp": working.tp if change.take_profit is None else _price(change.take_profit, symbol),
        "type_time": working.type_time,
    }
    if has_limit:
        request["stoplimit"] = (
            working.price_stoplimit if change.price is None else _price(change.price, symbol)
        )
    if working.time_expiration:
        request["expiration"] = working.time_expiration
    return request


def levels_request(position: OpenPosition, change: OrderChange, symbol: SymbolInfo) -> Request:
    """Return what sets a position's stop loss and take profit. Raises: Invalid."""
    if any(value is not None for value in (change.price, change.stop_price, change.volume)):
        raise Invalid("the order is filled: only stop loss and take profit can change", code="ORDER_ENDED")
    return {
        "action": int(TradeAction.SLTP),
        "symbol": position.symbol,
        "position": position.ticket,
        "sl": position.sl if change.stop_loss is None else _price(change.stop_loss, symbol),
        "tp": position.tp if change.take_profit is None else _price(change.take_profit, symbol),
    }


def magic_of(order: Order) -> int:
    """Return the number the terminal keeps with the order: its own, or else one made of its tag."""
    return order.magic & MAGIC_MAX or ledger.magic_of(order.id)


def ticket_of(text: str) -> int:
    """Return a ticket as the number it is. Raises: Invalid."""
    if not (text.isascii() and text.isdigit() and len(text) <= TICKET_DIGITS_MAX):
        raise Invalid(f"{text[:40]!r} is no ticket of MetaTrader", code="INVALID_TICKET")
    return int(text)


def _fillings(order: Order, symbol: SymbolInfo) -> Sequence[Filling]:
    """Return what may be asked for. The symbol's mask counts where the market or the exchange executes."""
    by_mask = [
        filling for filling in (Filling.FOK, Filling.IOC) if symbol.filling_mode & FILLING_BITS[filling]
    ]
    free = symbol.trade_exemode in (Execution.REQUEST, Execution.INSTANT)
    wanted = _AT_ONCE.get(order.time_in_force)
    if wanted is not None:
        if order.is_passive or not (free or wanted in by_mask):
            raise Invalid(f"{order.symbol} takes no {order.time_in_force} order", code="FILLING_UNSUPPORTED")
        return [wanted]
    if order.is_passive:
        # It rests; in a market execution some brokers want one of the symbol's all the same.
        return [Filling.RETURN, *by_mask]
    if free:
        return [Filling.FOK, Filling.IOC, Filling.RETURN]
    return (
        [*by_mask, Filling.RETURN] if symbol.trade_exemode == Execution.EXCHANGE or not by_mask else by_mask
    )


def _resting(order: Order, facts: Facts) -> Request:
    symbol = facts.symbol
    request: Request = {"type_time": int(_time(order, symbol))}
    if order.type is OrderType.LIMIT:
        request["price"] = _price(_given(order.price, "price"), symbol)
    else:
        request["price"] = _price(_given(order.stop_price, "stop price"), symbol)
    if order.type is OrderType.STOP_LIMIT:
        request["stoplimit"] = _price(_given(order.price, "price"), symbol)
    if order.time_in_force is TimeInForce.GTD:
        if facts.utc_offset_s == UTC_OFFSET_UNKNOWN:
            raise Invalid("the trade server's clock has not been measured yet", code="CLOCK_UNKNOWN")
        expires_s = _given(order.expires_at_ms, "end") // 1_000
        request["expiration"] = expires_s + facts.utc_offset_s
    return request


def _time(order: Order, symbol: SymbolInfo) -> TypeTime:
    wanted = _TIMES.get(order.time_in_force, TypeTime.GTC)
    if symbol.expiration_mode and not symbol.expiration_mode & EXPIRATION_BITS[wanted]:
        raise Invalid(f"{symbol.name} takes no {order.time_in_force} order", code="EXPIRATION_UNSUPPORTED")
    return wanted


def _market(side: Side, quote: Quote) -> float:
    price = quote.ask if side is Side.BUY else quote.bid
    if price <= 0:
        raise Invalid("there is no quote to trade at", code="NO_QUOTES")
    return price


def _require_volume(volume: Decimal, symbol: SymbolInfo) -> None:
    least, most, step = (
        Decimal(str(value)) for value in (symbol.volume_min, symbol.volume_max, symbol.volume_step)
    )
    if not volume.is_finite() or (step and volume % step):
        raise Invalid(f"{volume:f} lots are no multiple of {step:f}", code="VOLUME_STEP")
    if volume <= 0 or volume < least or (most and volume > most):
        raise Invalid(f"{volume:f} lots are not from {least:f} to {most:f}", code="VOLUME_RANGE")


def _require_reduction(order: Order, facts: Facts) -> None:
    """Refuse what could open or turn a position though it may not; MetaTrader itself knows no such order."""
    if not order.reduce_only:
        return
    if order.is_passive:
        raise Invalid("MetaTrader has no resting order that only reduces", code="REDUCE_ONLY_UNSUPPORTED")
    if facts.account.margin_mode == HEDGING_MARGIN_MODE and not order.position:
        raise Invalid("which position is to be reduced?", code="POSITION_REQUIRED")
    closes = TradeType.SELL if order.side is Side.BUY else TradeType.BUY
    held = [
        position
        for position in facts.positions
        if position.type == closes and (not order.position or position.ticket == ticket_of(order.position))
    ]
    if not held or order.volume > Decimal(str(held[0].volume)):
        raise Invalid("it would open a position, or turn one", code="REDUCE_ONLY")


def _levels(stop_loss: Decimal | None, take_profit: Decimal | None, symbol: SymbolInfo) -> Request:
    levels = {"sl": stop_loss, "tp": take_profit}
    return {name: _price(level, symbol) for name, level in levels.items() if level is not None}


def _price(price: Decimal, symbol: SymbolInfo) -> float:
    step = (
        Decimal(str(symbol.trade_tick_size)) if symbol.trade_tick_size else Decimal(1).scaleb(-symbol.digits)
    )
    if not price.is_finite() or price <= 0 or price % step:
        raise Invalid(f"{price:f} is no price of {symbol.name}, whose step is {step:f}", code="PRICE_STEP")
    return float(price)


def _given(value: Value | None, name: str) -> Value:
    if value is None:
        raise Invalid(f"the order has no {name}", code="INVALID_ORDER")
    return value


def _comment(tag: str) -> str:
    if not (tag.isascii() and tag.isprintable() and 0 < len(tag) <= COMMENT_CHARS_MAX):
        raise Invalid(f"{tag[:40]!r} does not fit in a comment", code="INVALID_TAG")
    return tag


def _name(symbol: str) -> str:
    if len(symbol) > COMMENT_CHARS_MAX:
        raise Invalid("the symbol's name is longer than the terminal takes", code="INVALID_SYMBOL")
    return symbol
