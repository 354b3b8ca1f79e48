"""How paper orders are filled. Pure: a book, the floor and the models make deals, always the same.

A market order crosses the spread: it buys at the ask and sells at the bid. A limit order fills at the quote once that
is its price or better, a stop order once the quote has reached it, at the quote, however far that is beyond. Stop loss
and take profit close their position by themselves. Swaps and commissions are left out. What is drawn is drawn from the
seed and the order's tag: the same order meets the same luck whenever it is asked again.
"""

import hashlib
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from core.model.orders import OrderState, Side, TimeInForce
from core.model.risk import QuoteSeen
from core.model.venues import Deal, VenueOrder
from core.trading.paper.book import Floor, Happened, PaperBook, PaperModels, PaperOrder, PaperPosition

DAY_MS: Final = 86_400_000
NOTHING: Final = Decimal(0)
CENT: Final = Decimal("0.01")
"""What a venue books is rounded; an average price may have no end."""
_AT_ONCE: Final = frozenset({TimeInForce.IOC, TimeInForce.FOK})


def step(book: PaperBook, floor: Floor, models: PaperModels, *, hedging: bool) -> Happened:
    """Let every order and position meet the newest quotes."""
    meeting = _Meeting(book=book, floor=floor, models=models, hedging=hedging)
    for position in list(book.positions):
        meeting.stop_out(position)
    for order in list(book.orders):
        meeting.meet(order)
    return meeting.happened


def seen(order: PaperOrder, state: OrderState, at_ms: int) -> VenueOrder:
    """Return an order as the venue tells of it."""
    return VenueOrder(
        ticket=order.ticket,
        tag=order.tag,
        symbol=order.symbol,
        side=order.side,
        type=order.type,
        state=state,
        volume=order.volume,
        volume_left=order.left,
        price=order.price,
        stop_price=order.stop_price,
        stop_loss=order.stop_loss,
        take_profit=order.take_profit,
        at_ms=at_ms,
    )


def due_ms(models: PaperModels, tag: str, at_ms: int) -> int:
    """Return from when on an order taken at `at_ms` meets quotes."""
    return at_ms + models.latency_ms + _drawn(models, f"{tag}/latency", models.latency_spread_ms)


def working_state(order: PaperOrder) -> OrderState:
    """Return the state of an order that has not ended."""
    return OrderState.ACCEPTED if order.left == order.volume else OrderState.PARTIALLY_FILLED


@dataclass(slots=True, kw_only=True)
class _Meeting:
    """A book on the floor. happened: so far."""

    book: PaperBook
    floor: Floor
    models: PaperModels
    hedging: bool
    happened: Happened = field(default_factory=Happened)

    def meet(self, order: PaperOrder) -> None:
        if self.floor.at_ms < order.due_ms:
            return
        if _is_over(order, self.floor.at_ms):
            self._end(order, OrderState.EXPIRED)
            return
        price, volume = self._price(order), self._offered(order)
        if order.reduce_only:
            reducible = self._reducible(order)
            if not reducible:
                self._end(order, OrderState.CANCELED)
                return
            volume = min(volume, reducible)
        if not volume or (order.time_in_force is TimeInForce.FOK and volume < order.left):
            price = None
        if price is not None:
            self._fill(order, volume, price)
        if not order.left:
            self._end(order, OrderState.FILLED)
        elif order.time_in_force in _AT_ONCE:
            self._end(order, OrderState.CANCELED)

    def stop_out(self, held: PaperPosition) -> None:
        quote = self.floor.quote(held.symbol, self.models.quote_age_ms_max)
        if quote is None or not self.floor.known(held.symbol):
            return
        price = quote.bid if held.side is Side.BUY else quote.ask
        sign = held.side.sign
        lost = held.stop_loss is not None and (held.stop_loss - price) * sign >= 0
        won = held.take_profit is not None and (price - held.take_profit) * sign >= 0
        if not (lost or won):
            return
        volume = held.volume
        profit = self._close(held, volume, price)
        deal = Deal(
            ticket=self.book.ticket(),
            # The venue did it by itself: no order is behind it, and its volume is nobody's fill.
            tag="",
            order=f"{held.ticket}:{'sl' if lost else 'tp'}",
            position=held.ticket,
            symbol=held.symbol,
            side=Side.SELL if held.side is Side.BUY else Side.BUY,
            volume=volume,
            price=price,
            profit=profit,
            at_ms=self.floor.at_ms,
        )
        self.happened.deals.append(deal)

    def _price(self, order: PaperOrder) -> Decimal | None:
        """Return the price at which the order trades now, or None."""
        quote: QuoteSeen | None = self.floor.quote(order.symbol, self.models.quote_age_ms_max)
        if quote is None or not self.floor.known(order.symbol):
            return None
        market, sign = (quote.ask if order.side is Side.BUY else quote.bid), order.side.sign
        if order.stop_price is not None and not order.triggered:
            if (market - order.stop_price) * sign < 0:
                return None
            order.triggered = True
        if order.price is not None:
            return market if (order.price - market) * sign >= 0 else None
        return market + sign * self._slip(order)

    def _slip(self, order: PaperOrder) -> Decimal:
        if self.models.slippage_ticks == 0:
            return NOTHING
        ticks = _drawn(self.models, f"{order.tag}/{order.left}", self.models.slippage_ticks)
        return ticks * self.floor.terms[order.symbol].tick_size

    def _offered(self, order: PaperOrder) -> Decimal:
        """Return how many lots of the order the newest quote may fill."""
        lots = self.models.lots_per_quote
        if lots is None:
            return order.left
        return NOTHING if order.met == self.floor.quotes.get(order.symbol) else min(order.left, lots)

    def _fill(self, order: PaperOrder, volume: Decimal, price: Decimal) -> None:
        order.left -= volume
        order.met = self.floor.quotes[order.symbol]
        held = next((one for one in self.book.positions if self._is_meant(one, order)), None)
        profit = NOTHING
        if held is None:
            held = self._open(order, volume, price)
        elif held.side is not order.side:
            closing = min(volume, held.volume)
            profit = self._close(held, closing, price)
            if volume > closing:
                # It goes on the other way under the same ticket, as MetaTrader's INOUT does.
                self._open(order, volume - closing, price, held.ticket)
        else:
            whole = held.volume + volume
            held.price_open = (held.price_open * held.volume + price * volume) / whole
            held.volume = whole
            held.stop_loss = order.stop_loss if order.stop_loss is not None else held.stop_loss
            held.take_profit = order.take_profit if order.take_profit is not None else held.take_profit
        deal = Deal(
            ticket=self.book.ticket(),
            tag=order.tag,
            order=order.ticket,
            position=held.ticket,
            symbol=order.symbol,
            side=order.side,
            volume=volume,
            price=price,
            profit=profit,
            at_ms=self.floor.at_ms,
        )
        self.happened.deals.append(deal)

    def _open(self, order: PaperOrder, volume: Decimal, price: Decimal, ticket: str = "") -> PaperPosition:
        position = PaperPosition(
            ticket=ticket or self.book.ticket(),
            tag=order.tag,
            symbol=order.symbol,
            side=order.side,
            volume=volume,
            price_open=price,
            stop_loss=order.stop_loss,
            take_profit=order.take_profit,
            at_ms=self.floor.at_ms,
        )
        self.book.positions.append(position)
        # The next part of the same order belongs to it.
        order.position = order.position or position.ticket
        return position

    def _close(self, held: PaperPosition, volume: Decimal, price: Decimal) -> Decimal:
        """Take `volume` out of a position and return what that realises."""
        size = self.floor.terms[held.symbol].contract_size * self.floor.rates[held.symbol]
        profit = ((price - held.price_open) * held.side.sign * volume * size).quantize(CENT)
        self.book.balance += profit
        held.volume -= volume
        if not held.volume:
            self.book.positions.remove(held)
        return profit

    def _is_meant(self, held: PaperPosition, order: PaperOrder) -> bool:
        return held.ticket == order.position if self.hedging else held.symbol == order.symbol

    def _reducible(self, order: PaperOrder) -> Decimal:
        """Return how many lots of the order only make a position smaller."""
        held = next((one for one in self.book.positions if self._is_meant(one, order)), None)
        return held.volume if held is not None and held.side is not order.side else NOTHING

    def _end(self, order: PaperOrder, state: OrderState) -> None:
        self.book.orders.remove(order)
        self.happened.ended.append(seen(order, state, self.floor.at_ms))


def _drawn(models: PaperModels, what: str, most: int) -> int:
    """Return a number from 0 to `most`, always the same for the same seed and thing."""
    text = f"{models.seed}/{what}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") % (most + 1)


def _is_over(order: PaperOrder, at_ms: int) -> bool:
    if order.time_in_force is TimeInForce.DAY:
        return at_ms // DAY_MS > order.at_ms // DAY_MS
    return order.expires_at_ms is not None and at_ms >= order.expires_at_ms
