"""A venue in memory that keeps the truth, and does what venues do: executes and then times out, forgets, is away,
rejects what it has taken, loses it, fills what it has taken back. Netting and hedging accounts.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum
from typing import Final

from core.errors.exceptions import Unavailable, UnknownOutcome
from core.model.orders import Order, OrderState, OrderType, Side
from core.model.venues import (
    Deal,
    OrderChange,
    TradingAccount,
    VenueOrder,
    VenuePosition,
    VenueReport,
    VenueView,
)

PRICE: Final = Decimal("1.1")
STRANGERS: Final = Decimal("0.3")
LATE_MS: Final = 15_000
"""So much later than it may be sent an order may arrive: it was on its way."""
_S = OrderState


class Trouble(StrEnum):
    """What the next order, cancellation or change meets."""

    NONE = "none"
    EXECUTED_THEN_SILENT = "executed, then silent"
    NEVER_ARRIVED = "never arrived"
    REJECTED = "rejected"
    AWAY = "away"
    IN_PART = "in part"
    LATE = "late"
    PLACED_THEN_REJECTED = "placed, then rejected"


@dataclass
class Book:
    """One account at the venue. hidden: tags the next view does not show yet; lost: tickets nobody sees again."""

    hedging: bool = False
    working: dict[str, VenueOrder] = field(default_factory=dict)
    ended: dict[str, VenueOrder] = field(default_factory=dict)
    deals: list[Deal] = field(default_factory=list)
    hidden: set[str] = field(default_factory=set)

    def held(self, hidden: frozenset[str] = frozenset()) -> dict[str, tuple[str, Decimal]]:
        """Return opener and signed volume of each position by its ticket; on a netting account there is one."""
        held: dict[str, tuple[str, Decimal]] = {}
        for deal in self.deals:
            if deal.tag not in hidden:
                opener, signed = held.get(deal.position, (deal.tag, Decimal(0)))
                held[deal.position] = (opener, signed + deal.side.sign * deal.volume)
        return {ticket: one for ticket, one in held.items() if one[1]}

    def positions(self, hidden: frozenset[str]) -> Iterator[VenuePosition]:
        for ticket, (opener, signed) in self.held(hidden).items():
            yield VenuePosition(
                ticket=ticket,
                tag=opener if self.hedging else "",
                symbol="EURUSD",
                side=Side.BUY if signed > 0 else Side.SELL,
                volume=abs(signed),
                price_open=PRICE,
                at_ms=1,
            )


@dataclass
class TruthVenue:
    """The `Venue` port. executions: how often each tag was carried out; prices: all an order has had here, by tag.

    trouble: of what is asked next; away: whatever is asked; meanwhile: happens within what is asked next. halted:
    accounts nothing may be sent for; offences: what should never have been asked. losses: orders lost; strangers:
    tickets of somebody else's; refusals: orders whose cancellation was refused.
    """

    books: dict[str, Book] = field(default_factory=lambda: defaultdict(Book))
    executions: Counter[str] = field(default_factory=Counter)
    sends: Counter[str] = field(default_factory=Counter)
    prices: dict[str, set[Decimal | None]] = field(default_factory=lambda: defaultdict(set))
    trouble: Trouble = Trouble.NONE
    away: bool = False
    meanwhile: Callable[[], Awaitable[None]] | None = None
    halted: set[str] = field(default_factory=set)
    offences: list[str] = field(default_factory=list)
    losses: set[str] = field(default_factory=set)
    strangers: set[str] = field(default_factory=set)
    refusals: set[str] = field(default_factory=set)
    tickets: int = 0

    # -- the port ------------------------------------------------------------------------------------

    async def send(self, account: TradingAccount, order: Order) -> VenueReport:
        self._look_at(order)
        trouble = await self._met(answered_later=True)
        book = self._book(account)
        if trouble is Trouble.REJECTED or (order.position and order.position not in book.held()):
            return VenueReport(state=_S.REJECTED, code="NO", reason="not today")
        ticket = self._execute(book, order, trouble)
        # What others do before the answer is there, they do to an order that is carried out already.
        await self._let_others()
        if trouble is Trouble.EXECUTED_THEN_SILENT:
            book.hidden.add(order.id)
            raise UnknownOutcome("no answer")
        deals = tuple(deal for deal in book.deals if deal.order == ticket)
        # Lost meanwhile, it was taken all the same, and that is what is answered.
        found = book.working.get(ticket) or book.ended.get(ticket)
        report = VenueReport(state=_S.ACCEPTED if found is None else found.state, order=ticket, deals=deals)
        if trouble is Trouble.PLACED_THEN_REJECTED and ticket in book.working:
            self._end(book, ticket, _S.REJECTED)
        return report

    async def cancel(self, account: TradingAccount, order: str) -> VenueReport:
        trouble = await self._met()
        book = self._book(account)
        working = book.working.get(order)
        if trouble is Trouble.REJECTED and working is not None:
            self.refusals.add(working.tag)
            return VenueReport(state=working.state, order=order, code="FROZEN", reason="not today")
        if trouble is Trouble.IN_PART and working is not None:
            self._fill(book, order, working.volume_left / 2)
        if working is not None:
            self._end(book, order, _S.CANCELED)
        return self._answer(book, order, trouble)

    async def modify(self, account: TradingAccount, order: str, change: OrderChange) -> VenueReport:
        trouble = await self._met()
        book = self._book(account)
        working = book.working.get(order)
        if trouble is Trouble.REJECTED and working is not None:
            return VenueReport(state=working.state, order=order, code="FROZEN", reason="not today")
        if trouble is Trouble.IN_PART and working is not None:
            self._fill(book, order, working.volume_left / 2)
        if working is None:
            ended = self._answer(book, order, trouble)
            return replace(ended, code="ORDER_ENDED", reason="the order has ended")
        self.prices[working.tag].add(change.price)
        book.working[order] = replace(book.working[order], price=change.price)
        return self._answer(book, order, trouble)

    async def view(self, account: TradingAccount, since_ms: int) -> VenueView:
        if self.away:
            raise Unavailable("the venue is away")
        book = self._book(account)
        hidden, book.hidden = frozenset(book.hidden), set()
        view = VenueView(
            at_ms=_now_ms(),
            balance=Decimal(100_000),
            equity=Decimal(100_000),
            margin=Decimal(0),
            margin_free=Decimal(100_000),
            orders=tuple(one for one in book.working.values() if one.tag not in hidden),
            ended=tuple(
                one for one in book.ended.values() if one.at_ms >= since_ms and one.tag not in hidden
            ),
            deals=tuple(one for one in book.deals if one.at_ms >= since_ms and one.tag not in hidden),
            positions=tuple(book.positions(hidden)),
        )
        # What comes now, the view does not show.
        await self._let_others()
        return view

    # -- what venues do by themselves ----------------------------------------------------------------

    def advance(self) -> None:
        """Let everything that works be filled."""
        for book in self.books.values():
            for ticket in list(book.working):
                self._fill(book, ticket, book.working[ticket].volume_left)

    def fill_what_was_taken_back(self, book: Book, ticket: str, share: int) -> None:
        """Tell of a fill that came before the cancellation."""
        order = book.ended[ticket]
        if order.state is _S.CANCELED and order.volume_left:
            book.working[ticket] = book.ended.pop(ticket)
            self._fill(book, ticket, order.volume_left / share)
            if ticket in book.working:
                self._end(book, ticket, _S.CANCELED)

    def reject(self, book: Book, ticket: str) -> None:
        self._end(book, ticket, _S.REJECTED)

    def lose(self, book: Book, ticket: str) -> None:
        """Forget an order of which nothing is filled."""
        if not any(deal.order == ticket for deal in book.deals):
            lost = book.working.pop(ticket)
            self.losses.add(lost.tag or ticket)
            # It is as if it had never come: it can be sent again.
            self.executions[lost.tag] -= 1

    def place_for_a_stranger(self, account: TradingAccount, price: Decimal) -> None:
        book = self._book(account)
        ticket = self._place(
            book, account.id, tag="", kind=OrderType.LIMIT, side=Side.BUY, volume=STRANGERS, price=price
        )
        self.strangers.add(ticket)

    # -- how -----------------------------------------------------------------------------------------

    def _look_at(self, order: Order) -> None:
        """Note what must never be sent."""
        self.sends[order.id] += 1
        if order.account in self.halted:
            self.offences.append(f"{order.id} was sent behind a kill switch")
        if order.type is OrderType.MARKET and self.sends[order.id] > 1:
            self.offences.append(f"{order.id}: a market order was sent twice")
        late_ms = _now_ms() - order.submitted_at_ms - (order.valid_for_ms or 0)
        if order.valid_for_ms is not None and late_ms > LATE_MS:
            self.offences.append(f"{order.id} was sent {late_ms} ms too late")

    async def _met(self, *, answered_later: bool = False) -> Trouble:
        """Return what is met by what is asked now. Raises: Unavailable, UnknownOutcome."""
        trouble, self.trouble = self.trouble, Trouble.NONE
        if not answered_later:
            await self._let_others()
        if self.away or trouble is Trouble.AWAY:
            raise Unavailable("the venue is away")
        if trouble is Trouble.NEVER_ARRIVED:
            raise UnknownOutcome("no answer")
        return trouble

    async def _let_others(self) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        await asyncio.sleep(0)
        if meanwhile is not None:
            await meanwhile()

    def _book(self, account: TradingAccount) -> Book:
        book = self.books[account.id]
        book.hedging = account.hedging
        return book

    def _answer(self, book: Book, ticket: str, trouble: Trouble) -> VenueReport:
        if trouble is Trouble.EXECUTED_THEN_SILENT:
            raise UnknownOutcome("no answer")
        if trouble is Trouble.LATE:
            return VenueReport(state=_S.UNKNOWN, order=ticket)
        found = book.working.get(ticket) or book.ended.get(ticket)
        if found is None:
            return VenueReport(state=_S.REJECTED, code="ORDER_UNKNOWN", reason="the venue has no such order")
        deals = tuple(deal for deal in book.deals if deal.order == ticket)
        return VenueReport(state=found.state, order=ticket, deals=deals)

    def _execute(self, book: Book, order: Order, trouble: Trouble) -> str:
        self.executions[order.id] += 1
        ticket = self._place(
            book,
            order.account,
            tag=order.id,
            kind=order.type,
            side=order.side,
            volume=order.volume,
            price=order.price,
            closes=order.position,
        )
        if trouble is Trouble.IN_PART:
            self._fill(book, ticket, order.volume / 2)
        elif order.type is OrderType.MARKET and trouble not in {Trouble.LATE, Trouble.PLACED_THEN_REJECTED}:
            self._fill(book, ticket, order.volume)
        return ticket

    def _place(
        self,
        book: Book,
        account: str,
        *,
        tag: str,
        kind: OrderType,
        side: Side,
        volume: Decimal,
        price: Decimal | None,
        closes: str = "",
    ) -> str:
        self.tickets += 1
        ticket = f"{account}/{self.tickets}/{closes}"
        book.working[ticket] = VenueOrder(
            ticket=ticket,
            tag=tag,
            symbol="EURUSD",
            side=side,
            type=kind,
            state=_S.ACCEPTED,
            volume=volume,
            volume_left=volume,
            price=price,
            at_ms=_now_ms(),
        )
        self.prices[tag].add(price)
        return ticket

    def _fill(self, book: Book, ticket: str, volume: Decimal) -> None:
        """Fill an order; one that closes a position fills no more than there is of it, and ends with it."""
        order = book.working[ticket]
        closes = ticket.partition("/")[2].partition("/")[2]
        if closes:
            _, there = book.held().get(closes, ("", Decimal(0)))
            volume = min(volume, max(Decimal(0), -order.side.sign * there))
        if volume:
            book.deals.append(_deal(book, order, volume, closes))
        left = order.volume_left - volume
        book.working[ticket] = replace(
            order, state=_S.PARTIALLY_FILLED if left < order.volume else order.state, volume_left=left
        )
        if not left:
            self._end(book, ticket, _S.FILLED)
        elif closes and closes not in book.held():
            self._end(book, ticket, _S.CANCELED)

    def _end(self, book: Book, ticket: str, state: OrderState) -> None:
        """End a working order. One that is partly filled is not rejected any more, but taken back."""
        order = book.working.pop(ticket)
        if state is _S.REJECTED and order.volume_left < order.volume:
            state = _S.CANCELED
        book.ended[ticket] = replace(order, state=state, at_ms=_now_ms())


def _deal(book: Book, order: VenueOrder, volume: Decimal, closes: str) -> Deal:
    return Deal(
        ticket=f"{order.ticket}/{len(book.deals)}",
        tag=order.tag,
        order=order.ticket,
        position=closes or (order.ticket if book.hedging else "1"),
        symbol=order.symbol,
        side=order.side,
        volume=volume,
        price=PRICE,
        at_ms=_now_ms(),
    )


def _now_ms() -> int:
    return int(time.time() * 1_000)
