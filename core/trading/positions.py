"""What deals make of positions. Pure. Netting accounts have one position a symbol, hedging accounts one a ticket."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from decimal import Decimal

from core.model.ledger import Fill, Holding
from core.model.orders import Side


def applied(holdings: Iterable[Holding], fills: Iterable[Fill], *, hedging: bool) -> list[Holding]:
    """Return the positions there are once `fills` have happened, by ticket."""
    held = {_key(one.symbol, one.ticket, hedging): one for one in holdings}
    for fill in fills:
        key = _key(fill.symbol, fill.position, hedging)
        after = _after(held.pop(key, None), fill)
        if after is not None:
            held[key] = after
    return sorted(held.values(), key=lambda one: one.ticket)


def net(holdings: Sequence[Holding], symbol: str) -> Decimal:
    """Return the signed volume of a symbol, long above 0."""
    return sum((one.side.sign * one.volume for one in holdings if one.symbol == symbol), Decimal(0))


def _key(symbol: str, ticket: str, hedging: bool) -> str:
    return ticket if hedging else symbol


def _after(held: Holding | None, fill: Fill) -> Holding | None:
    if held is None:
        return _opened(fill, fill.volume)
    if held.side is fill.side:
        volume = held.volume + fill.volume
        price = (held.price_open * held.volume + fill.price * fill.volume) / volume
        return replace(held, volume=volume, price_open=price)
    if fill.volume < held.volume:
        return replace(held, volume=held.volume - fill.volume)
    if fill.volume == held.volume:
        return None
    # It goes on the other way, at the price of the deal that turned it.
    return _opened(fill, fill.volume - held.volume)


def _opened(fill: Fill, volume: Decimal) -> Holding:
    return Holding(
        account=fill.account,
        ticket=fill.position or fill.deal,
        symbol=fill.symbol,
        side=Side(fill.side),
        volume=volume,
        price_open=fill.price,
        stop_loss=None,
        take_profit=None,
        order=fill.order or "",
        opened_at_ms=fill.at_ms,
    )
