"""The paper venue: does each time it is asked what it is asked, on books that are kept, at quotes as they come."""

import asyncio
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Final, TypeVar
from weakref import WeakValueDictionary

import msgspec
import structlog

from core.errors.exceptions import TickgateError, Unavailable
from core.model.orders import Order, OrderState
from core.model.paper import PaperPage
from core.model.venues import (
    OrderChange,
    TradingAccount,
    VenuePosition,
    VenueReport,
    VenueView,
)
from core.ports.paper import PaperBooks
from core.trading.market import Quotes, markets_of
from core.trading.paper.admission import refusal_of, worth
from core.trading.paper.book import Floor, Happened, PaperBook, PaperModels, PaperOrder, PaperPosition
from core.trading.paper.fills import due_ms, seen, step, working_state

log = structlog.get_logger(__name__)

TRIES_MAX: Final = 50
"""As often another process may be quicker with the same account."""
Result = TypeVar("Result")
_S = OrderState
_read = msgspec.json.Decoder(PaperBook).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperVenue:
    """The `Venue` port on paper."""

    books: PaperBooks
    quotes: Quotes
    models: PaperModels = field(default_factory=PaperModels)
    _turns: MutableMapping[tuple[str, str], asyncio.Lock] = field(default_factory=WeakValueDictionary)

    async def send(self, account: TradingAccount, order: Order) -> VenueReport:
        def take(book: PaperBook, floor: Floor) -> tuple[VenueReport, Happened | None]:
            if refusal := refusal_of(account, book, order, floor, self.models):
                return refusal, None
            taken = self._taken(book, order, floor.at_ms)
            book.orders.append(taken)
            happened = step(book, floor, self.models, hedging=account.hedging)
            return _report(taken, happened), happened

        return await self._changed(account, take, order.symbol)

    async def cancel(self, account: TradingAccount, order: str) -> VenueReport:
        def take_back(book: PaperBook, floor: Floor) -> tuple[VenueReport | None, Happened | None]:
            working = _working(book, order)
            if working is None:
                return None, None
            book.orders.remove(working)
            ended = seen(working, _S.CANCELED, floor.at_ms)
            return VenueReport(state=_S.CANCELED, order=order), Happened(ended=[ended])

        # No quote has a say in it: it is taken back also while there is none.
        report = await self._changed(account, take_back, quoted=False)
        return report or await self._ended(account, order)

    async def modify(self, account: TradingAccount, order: str, change: OrderChange) -> VenueReport:
        def alter(book: PaperBook, floor: Floor) -> tuple[VenueReport | None, Happened | None]:
            working = _working(book, order)
            if working is None:
                return None, None
            for name in ("price", "stop_price", "stop_loss", "take_profit"):
                if (value := getattr(change, name)) is not None:
                    setattr(working, name, value)
            happened = step(book, floor, self.models, hedging=account.hedging)
            return _report(working, happened), happened

        return await self._changed(account, alter) or await self._ended(account, order)

    async def view(self, account: TradingAccount, since_ms: int) -> VenueView:
        page, past = await self.books.viewed(account, since_ms)
        book, floor = _book(page, account), await self._floor(page)
        equity, margin = worth(account, book, floor)
        return VenueView(
            at_ms=floor.at_ms,
            balance=book.balance,
            equity=equity,
            margin=margin,
            margin_free=None if equity is None or margin is None else equity - margin,
            orders=tuple(seen(one, working_state(one), one.at_ms) for one in book.orders),
            ended=past.ended,
            deals=past.deals,
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
        """Let one account's orders and positions meet the newest quotes. Raises: Unavailable, UnknownOutcome."""

        def go_on(book: PaperBook, floor: Floor) -> tuple[None, Happened | None]:
            before = msgspec.json.encode(book)
            happened = step(book, floor, self.models, hedging=account.hedging)
            return None, None if msgspec.json.encode(book) == before else happened

        await self._changed(account, go_on)

    async def _changed(
        self,
        account: TradingAccount,
        do: Callable[[PaperBook, Floor], tuple[Result, Happened | None]],
        symbol: str = "",
        *,
        quoted: bool = True,
    ) -> Result:
        """Do something to a book: read it, then ask for quotes, and keep what came of it unless it was changed since.

        Nothing is locked meanwhile, so that quotes which do not come keep nobody waiting; who is too late begins anew.
        Within this process one waits for the other. Where nothing happened nothing is kept.
        """
        turn = self._turns.setdefault((account.tenant, account.id), asyncio.Lock())
        async with turn:
            for _ in range(TRIES_MAX):
                page = await self.books.opened(account, symbol)
                book, floor = _book(page, account), await self._floor(page, symbol, quoted=quoted)
                # No number twice, also of a fill that a crash took back: somebody may remember it.
                book.next_ticket = max(book.next_ticket, page.at_ms)
                result, happened = do(book, floor)
                if happened is None or await self._keep(account, page, book, happened):
                    return result
        raise Unavailable("the account is too busy on paper", code="PAPER_BUSY", detail=account.id)

    async def _keep(
        self, account: TradingAccount, page: PaperPage, book: PaperBook, happened: Happened
    ) -> bool:
        guarded = any(p.stop_loss is not None or p.take_profit is not None for p in book.positions)
        return await self.books.keep(
            account,
            page,
            msgspec.json.encode(book),
            symbols=_symbols(book),
            busy=bool(book.orders) or guarded,
            deals=happened.deals,
            ended=happened.ended,
        )

    async def _floor(self, page: PaperPage, symbol: str = "", *, quoted: bool = True) -> Floor:
        symbols = {one.symbol for one in page.listing.instruments} | ({symbol} if symbol else set())
        markets = await markets_of(sorted(symbols), page.listing, self.quotes) if quoted else {}
        return Floor(
            at_ms=page.at_ms,
            quotes={symbol: m.quote for symbol, m in markets.items() if m.quote is not None},
            terms={symbol: m.terms for symbol, m in markets.items() if m.terms is not None},
            rates={symbol: m.rate for symbol, m in markets.items() if m.rate is not None},
        )

    async def _ended(self, account: TradingAccount, ticket: str) -> VenueReport:
        """Say how an order ended that does not work any more."""
        past = await self.books.past_of(account, ticket)
        if past.ended:
            return VenueReport(state=past.ended[-1].state, order=ticket, deals=past.deals)
        return VenueReport(state=_S.REJECTED, code="ORDER_UNKNOWN", reason="the venue has no such order")

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
            reduce_only=order.reduce_only or bool(order.position),
            due_ms=due_ms(self.models, order.id, at_ms),
            at_ms=at_ms,
        )


def _book(page: PaperPage, account: TradingAccount) -> PaperBook:
    return PaperBook(balance=account.opening_balance) if page.text is None else _read(page.text)


def _symbols(book: PaperBook) -> set[str]:
    return {one.symbol for one in book.orders} | {one.symbol for one in book.positions}


def _working(book: PaperBook, ticket: str) -> PaperOrder | None:
    return next((one for one in book.orders if one.ticket == ticket), None)


def _report(order: PaperOrder, happened: Happened) -> VenueReport:
    deals = tuple(deal for deal in happened.deals if deal.order == order.ticket)
    ended = next((one for one in happened.ended if one.ticket == order.ticket), None)
    state = working_state(order) if ended is None else ended.state
    return VenueReport(state=state, order=order.ticket, deals=deals)


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
