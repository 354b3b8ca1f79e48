"""The paper venue: does each time it is asked what it is asked, on books that are kept, at quotes as they come."""

from dataclasses import dataclass, field
from decimal import Decimal
from time import time

import msgspec
import structlog

from core.errors.exceptions import TickgateError
from core.model.orders import Order, OrderState, OrderType
from core.model.venues import (
    OrderChange,
    TradingAccount,
    VenuePosition,
    VenueReport,
    VenueView,
)
from core.ports.paper import OpenPaperBook, PaperBooks
from core.trading.market import Market, Quotes, market_of
from core.trading.paper.book import Floor, Happened, PaperBook, PaperModels, PaperOrder, PaperPosition
from core.trading.paper.fills import seen, step, working_state

log = structlog.get_logger(__name__)

_S = OrderState
_read = msgspec.json.Decoder(PaperBook).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperVenue:
    """The `Venue` port on paper."""

    books: PaperBooks
    quotes: Quotes
    models: PaperModels = field(default_factory=PaperModels)

    async def send(self, account: TradingAccount, order: Order) -> VenueReport:
        async with self.books.opened(account) as kept:
            book = _book(kept, account)
            floor = await self._floor(kept, book, order.symbol)
            if refusal := self._refused(account, book, order, floor):
                return refusal
            taken = self._taken(book, order, floor.at_ms)
            book.orders.append(taken)
            happened = step(book, floor, self.models, hedging=account.hedging)
            await _keep(kept, book, happened)
            return _report(taken, happened)

    async def cancel(self, account: TradingAccount, order: str) -> VenueReport:
        async with self.books.opened(account) as kept:
            book = _book(kept, account)
            working = next((one for one in book.orders if one.ticket == order), None)
            if working is None:
                return await _ended(kept, order)
            book.orders.remove(working)
            ended = seen(working, _S.CANCELED, _now_ms())
            await _keep(kept, book, Happened(ended=[ended]))
            return VenueReport(state=_S.CANCELED, order=order)

    async def modify(self, account: TradingAccount, order: str, change: OrderChange) -> VenueReport:
        async with self.books.opened(account) as kept:
            book = _book(kept, account)
            working = next((one for one in book.orders if one.ticket == order), None)
            if working is None:
                return await _ended(kept, order)
            for name in ("price", "stop_price", "stop_loss", "take_profit"):
                if (value := getattr(change, name)) is not None:
                    setattr(working, name, value)
            floor = await self._floor(kept, book, working.symbol)
            happened = step(book, floor, self.models, hedging=account.hedging)
            await _keep(kept, book, happened)
            return _report(working, happened)

    async def view(self, account: TradingAccount, since_ms: int) -> VenueView:
        async with self.books.opened(account) as kept:
            book = _book(kept, account)
            floor = await self._floor(kept, book)
            deals, ended = await kept.happened(since_ms)
            equity, margin = _worth(account, book, floor)
            return VenueView(
                at_ms=floor.at_ms,
                balance=book.balance,
                equity=equity,
                margin=margin,
                margin_free=None if equity is None or margin is None else equity - margin,
                orders=tuple(seen(one, working_state(one), one.at_ms) for one in book.orders),
                ended=tuple(ended),
                deals=tuple(deals),
                positions=tuple(_position(one) for one in book.positions),
            )

    async def advance_all(self) -> int:
        """Let all orders and positions meet the newest quotes; return how many accounts there were.

        Raises: Unavailable.
        """
        busy = await self.books.busy()
        for account in busy:
            try:
                await self.advance(account)
            except TickgateError as e:
                log.warning("paper.not_advanced", account=account.id, error=str(e))
        return len(busy)

    async def advance(self, account: TradingAccount) -> None:
        """Let one account's orders and positions meet the newest quotes. Raises: Unavailable."""
        async with self.books.opened(account) as kept:
            book = _book(kept, account)
            before = msgspec.json.encode(book)
            floor = await self._floor(kept, book)
            happened = step(book, floor, self.models, hedging=account.hedging)
            if msgspec.json.encode(book) != before:
                await _keep(kept, book, happened)

    async def _floor(self, kept: OpenPaperBook, book: PaperBook, *more: str) -> Floor:
        symbols = sorted({*more, *(o.symbol for o in book.orders), *(p.symbol for p in book.positions)})
        markets: dict[str, Market] = {
            symbol: await market_of(symbol, await kept.listing(symbol), self.quotes) for symbol in symbols
        }
        return Floor(
            at_ms=_now_ms(),
            quotes={symbol: m.quote for symbol, m in markets.items() if m.quote is not None},
            terms={symbol: m.terms for symbol, m in markets.items() if m.terms is not None},
            rates={symbol: m.rate for symbol, m in markets.items() if m.rate is not None},
        )

    def _refused(
        self, account: TradingAccount, book: PaperBook, order: Order, floor: Floor
    ) -> VenueReport | None:
        if not floor.known(order.symbol):
            return _no("SYMBOL_UNKNOWN", "nothing is known of this symbol here")
        if order.type is OrderType.MARKET and floor.quote(order.symbol, self.models.quote_age_ms_max) is None:
            return _no("MARKET_CLOSED", "there is no fresh quote")
        terms = floor.terms[order.symbol]
        if not terms.volume_min <= order.volume <= terms.volume_max or order.volume % terms.volume_step:
            return _no("VOLUME_INVALID", "no such volume is taken")
        if order.position and all(one.ticket != order.position for one in book.positions):
            return _no("POSITION_CLOSED", "there is no such position")
        return self._without_money(account, book, order, floor)

    def _without_money(
        self, account: TradingAccount, book: PaperBook, order: Order, floor: Floor
    ) -> VenueReport | None:
        if order.reduce_only or order.position:
            return None
        equity, margin = _worth(account, book, floor)
        market = Market(
            terms=floor.terms[order.symbol],
            quote=floor.quotes.get(order.symbol),
            rate=floor.rates[order.symbol],
        )
        needed = market.margin(order, account.leverage)
        if equity is None or margin is None or needed is None or needed > equity - margin:
            return _no("NO_MONEY", "the order needs more margin than is free")
        return None

    def _taken(self, book: PaperBook, order: Order, at_ms: int) -> PaperOrder:
        return PaperOrder(
            ticket=book.ticket(),
            tag=order.id,
            symbol=order.symbol,
            side=order.side,
            type=order.type,
            time_in_force=order.time_in_force,
            volume=order.volume,
            left=order.volume,
            price=order.price,
            stop_price=order.stop_price,
            stop_loss=order.stop_loss,
            take_profit=order.take_profit,
            expires_at_ms=order.expires_at_ms,
            position=order.position,
            reduce_only=order.reduce_only,
            due_ms=at_ms + self.models.latency_ms,
            at_ms=at_ms,
        )


def _book(kept: OpenPaperBook, account: TradingAccount) -> PaperBook:
    return PaperBook(balance=account.opening_balance) if kept.text is None else _read(kept.text)


async def _keep(kept: OpenPaperBook, book: PaperBook, happened: Happened) -> None:
    guarded = any(p.stop_loss is not None or p.take_profit is not None for p in book.positions)
    text = msgspec.json.encode(book)
    await kept.keep(text, busy=bool(book.orders) or guarded, deals=happened.deals, ended=happened.ended)


def _report(order: PaperOrder, happened: Happened) -> VenueReport:
    deals = tuple(deal for deal in happened.deals if deal.order == order.ticket)
    ended = next((one for one in happened.ended if one.ticket == order.ticket), None)
    state = working_state(order) if ended is None else ended.state
    return VenueReport(state=state, order=order.ticket, deals=deals)


async def _ended(kept: OpenPaperBook, ticket: str) -> VenueReport:
    """Say how an order ended that does not work any more."""
    deals, ended = await kept.happened(0)
    for one in reversed(ended):
        if one.ticket == ticket:
            return VenueReport(
                state=one.state, order=ticket, deals=tuple(deal for deal in deals if deal.order == ticket)
            )
    return VenueReport(state=_S.REJECTED, code="ORDER_UNKNOWN", reason="the venue has no such order")


def _worth(account: TradingAccount, book: PaperBook, floor: Floor) -> tuple[Decimal | None, Decimal | None]:
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


def _position(held: PaperPosition) -> VenuePosition:
    return VenuePosition(
        ticket=held.ticket,
        tag=held.tag,
        symbol=held.symbol,
        side=held.side,
        volume=held.volume,
        price_open=held.price_open,
        stop_loss=held.stop_loss,
        take_profit=held.take_profit,
        at_ms=held.at_ms,
    )


def _no(code: str, reason: str) -> VenueReport:
    return VenueReport(state=_S.REJECTED, code=code, reason=reason)


def _now_ms() -> int:
    return int(time() * 1_000)
