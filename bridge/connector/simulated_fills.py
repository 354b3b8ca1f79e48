"""What a fill makes of the simulated broker's positions and balance, on netting and hedging accounts."""

from typing import Final

import msgspec

from bridge.connector.microstructure import INSTRUMENTS
from bridge.connector.simulated_book import HISTORY_MAX, Book
from bridge.connector.trades import IN, INOUT, OUT, MadeDeal, OpenPosition, PlacedOrder, Reason, TradeType

CONTRACT_SIZES: Final = {"XAUUSD": 100.0}
CONTRACT_SIZE: Final = 100_000.0
ROUNDING: Final = 1e-6
"""Of lots and steps: floats that were decimal numbers."""


def money_rate(symbol: str, price: float) -> float:
    """Return what one lot gains in US dollars when the price moves by one."""
    size = CONTRACT_SIZES.get(symbol, CONTRACT_SIZE)
    # Quoted in dollars, or dollars quoted in something else: then at the price itself.
    return size / price if symbol.startswith("USD") else size


def fill(
    book: Book,
    order: PlacedOrder,
    volume: float,
    price: float,
    at_ms: int,
    *,
    position: int | None,
    hedging: bool,
) -> MadeDeal:
    """Fill `volume` of an order. position: the ticket it closes."""
    held = _held(book, order.symbol, position, hedging=hedging)
    if held is None:
        opened = _opened(order, order.ticket, volume, price, at_ms)
        book.put(opened)
        return _deal(book, order, volume, price, at_ms, position=opened.ticket, entry=IN)
    if held.type == order.type % 2:
        whole = _lots(held.volume + volume)
        average = (held.price_open * held.volume + price * volume) / whole
        levels = {"sl": order.sl or held.sl, "tp": order.tp or held.tp}
        book.put(msgspec.structs.replace(held, volume=whole, price_open=average, **levels))
        return _deal(book, order, volume, price, at_ms, position=held.ticket, entry=IN)
    closing = min(volume, held.volume)
    profit = _realise(book, held, closing, price)
    beyond = _lots(volume - closing)
    if beyond > ROUNDING:
        # It goes on the other way, under the same ticket.
        book.put(_opened(order, held.ticket, beyond, price, at_ms))
    entry = INOUT if beyond > ROUNDING else OUT
    return _deal(book, order, volume, price, at_ms, position=held.ticket, entry=entry, profit=profit)


def close_at(book: Book, position: OpenPosition, price: float, at_ms: int, *, stop_loss: bool) -> None:
    """Close a position by itself, as its stop loss or take profit does."""
    reason = Reason.STOP_LOSS if stop_loss else Reason.TAKE_PROFIT
    profit = _realise(book, position, position.volume, price)
    deal = MadeDeal(
        ticket=book.ticket(),
        order=book.ticket(),
        time_msc=at_ms,
        type=1 - position.type,
        entry=OUT,
        magic=position.magic,
        position_id=position.identifier,
        reason=reason,
        volume=position.volume,
        price=price,
        profit=profit,
        symbol=position.symbol,
        comment=f"[{'sl' if stop_loss else 'tp'} {price:g}]",
    )
    book.deals = [*book.deals, deal][-HISTORY_MAX:]


def _held(book: Book, symbol: str, position: int | None, *, hedging: bool) -> OpenPosition | None:
    if hedging and position is None:
        return None
    return next(
        (
            one
            for one in book.positions
            if one.symbol == symbol and (position is None or one.ticket == position)
        ),
        None,
    )


def _realise(book: Book, held: OpenPosition, volume: float, price: float) -> float:
    sign = 1 if held.type == TradeType.BUY else -1
    profit = round((price - held.price_open) * sign * volume * money_rate(held.symbol, price), 2)
    book.balance = round(book.balance + profit, 2)
    book.put(msgspec.structs.replace(held, volume=_lots(held.volume - volume)))
    return profit


def _opened(order: PlacedOrder, ticket: int, volume: float, price: float, at_ms: int) -> OpenPosition:
    return OpenPosition(
        ticket=ticket,
        time_msc=at_ms,
        type=order.type % 2,
        magic=order.magic,
        identifier=ticket,
        reason=order.reason,
        volume=volume,
        price_open=price,
        sl=order.sl,
        tp=order.tp,
        symbol=order.symbol,
        comment=order.comment,
    )


def _deal(
    book: Book,
    order: PlacedOrder,
    volume: float,
    price: float,
    at_ms: int,
    *,
    position: int,
    entry: int,
    profit: float = 0.0,
) -> MadeDeal:
    deal = MadeDeal(
        ticket=book.ticket(),
        order=order.ticket,
        time_msc=at_ms,
        type=order.type % 2,
        entry=entry,
        magic=order.magic,
        position_id=position,
        reason=order.reason,
        volume=volume,
        price=price,
        profit=profit,
        symbol=order.symbol,
        comment=order.comment,
    )
    book.deals = [*book.deals, deal][-HISTORY_MAX:]
    return deal


def _lots(volume: float) -> float:
    return round(volume, 8)


assert set(CONTRACT_SIZES) <= set(INSTRUMENTS), "every symbol is one of the simulation's"
