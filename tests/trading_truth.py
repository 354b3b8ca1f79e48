"""A venue in memory that keeps the truth, and does what venues do: executes and then times out, forgets, is away.

And a way to let a coroutine die at any of its awaits, as a killed process does.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine, Generator
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any

from core.errors.exceptions import TickgateError, Unavailable, UnknownOutcome
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

PRICE = Decimal("1.1")


class Trouble(StrEnum):
    """What the next order meets."""

    NONE = "none"
    EXECUTED_THEN_SILENT = "executed, then silent"
    NEVER_ARRIVED = "never arrived"
    REJECTED = "rejected"
    AWAY = "away"
    IN_PART = "in part"
    LATE = "late"


@dataclass
class TruthVenue:
    """The `Venue` port. executions: how often each tag was carried out. hidden: tags the next views do not show yet."""

    executions: Counter[str] = field(default_factory=Counter)
    working: dict[str, VenueOrder] = field(default_factory=dict)
    ended: list[VenueOrder] = field(default_factory=list)
    deals: list[Deal] = field(default_factory=list)
    hidden: set[str] = field(default_factory=set)
    trouble: Trouble = Trouble.NONE
    tickets: int = 0

    async def send(self, _account: TradingAccount, order: Order) -> VenueReport:
        trouble, self.trouble = self.trouble, Trouble.NONE
        await asyncio.sleep(0)
        if trouble is Trouble.AWAY:
            raise Unavailable("the venue is away")
        if trouble is Trouble.NEVER_ARRIVED:
            raise UnknownOutcome("no answer")
        if trouble is Trouble.REJECTED:
            return VenueReport(state=OrderState.REJECTED, code="NO", reason="not today")
        ticket = self._execute(order, trouble)
        await asyncio.sleep(0)
        if trouble is Trouble.EXECUTED_THEN_SILENT:
            self.hidden.add(order.id)
            raise UnknownOutcome("no answer")
        deals = tuple(deal for deal in self.deals if deal.order == ticket)
        found = self.working.get(ticket) or next(one for one in self.ended if one.ticket == ticket)
        return VenueReport(state=found.state, order=ticket, deals=deals)

    async def cancel(self, _account: TradingAccount, order: str) -> VenueReport:
        await asyncio.sleep(0)
        trouble, self.trouble = self.trouble, Trouble.NONE
        if trouble is Trouble.AWAY:
            raise Unavailable("the venue is away")
        if order in self.working:
            self._end(order, OrderState.CANCELED)
        if trouble is Trouble.EXECUTED_THEN_SILENT:
            return VenueReport(state=OrderState.UNKNOWN, order=order)
        found = next((one for one in self.ended if one.ticket == order), None)
        state = found.state if found else OrderState.REJECTED
        return VenueReport(state=state, order=order)

    async def modify(self, _account: TradingAccount, order: str, change: OrderChange) -> VenueReport:
        await asyncio.sleep(0)
        found = self.working.get(order) or next(one for one in self.ended if one.ticket == order)
        return VenueReport(state=found.state, order=order)

    async def view(self, _account: TradingAccount, since_ms: int) -> VenueView:
        await asyncio.sleep(0)
        hidden, self.hidden = self.hidden, set()
        return VenueView(
            at_ms=_now_ms(),
            balance=Decimal(100_000),
            equity=Decimal(100_000),
            margin=Decimal(0),
            margin_free=Decimal(100_000),
            orders=tuple(one for one in self.working.values() if one.tag not in hidden),
            ended=tuple(one for one in self.ended if one.at_ms >= since_ms and one.tag not in hidden),
            deals=tuple(one for one in self.deals if one.at_ms >= since_ms and one.tag not in hidden),
            positions=self.positions(hidden),
        )

    def advance(self) -> None:
        """Let everything that works be filled."""
        for ticket in list(self.working):
            self._fill(ticket, self.working[ticket].volume_left)

    def positions(self, hidden: set[str] | None = None) -> tuple[VenuePosition, ...]:
        net = self.net(hidden)
        if not net:
            return ()
        side = Side.BUY if net > 0 else Side.SELL
        return (
            VenuePosition(
                ticket="1", tag="", symbol="EURUSD", side=side, volume=abs(net), price_open=PRICE, at_ms=1
            ),
        )

    def net(self, hidden: set[str] | None = None) -> Decimal:
        shown = (deal for deal in self.deals if deal.tag not in (hidden or set()))
        return sum((deal.side.sign * deal.volume for deal in shown), Decimal(0))

    def _execute(self, order: Order, trouble: Trouble) -> str:
        self.executions[order.id] += 1
        self.tickets += 1
        ticket = f"{order.account}/{self.tickets}"
        self.working[ticket] = VenueOrder(
            ticket=ticket,
            tag=order.id,
            symbol=order.symbol,
            side=order.side,
            type=order.type,
            state=OrderState.ACCEPTED,
            volume=order.volume,
            volume_left=order.volume,
            price=order.price,
            at_ms=_now_ms(),
        )
        if trouble is Trouble.IN_PART:
            self._fill(ticket, order.volume / 2)
        elif order.type is OrderType.MARKET and trouble is not Trouble.LATE:
            self._fill(ticket, order.volume)
        return ticket

    def _fill(self, ticket: str, volume: Decimal) -> None:
        order = self.working[ticket]
        self.deals.append(
            Deal(
                ticket=f"{ticket}/{len(self.deals)}",
                tag=order.tag,
                order=ticket,
                position="1",
                symbol=order.symbol,
                side=order.side,
                volume=volume,
                price=PRICE,
                at_ms=_now_ms(),
            )
        )
        left = order.volume_left - volume
        self.working[ticket] = _changed(order, OrderState.PARTIALLY_FILLED, left)
        if not left:
            self._end(ticket, OrderState.FILLED)

    def _end(self, ticket: str, state: OrderState) -> None:
        order = self.working.pop(ticket)
        self.ended.append(_changed(order, state, order.volume_left))


def _changed(order: VenueOrder, state: OrderState, left: Decimal) -> VenueOrder:
    fields = {name: getattr(order, name) for name in VenueOrder.__dataclass_fields__}
    return VenueOrder(**{**fields, "state": state, "volume_left": left, "at_ms": _now_ms()})


def _now_ms() -> int:
    return int(time.time() * 1_000)


class DiesAtAwait:
    """Runs a coroutine in a task of its own up to its n-th await, and cancels it there."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], awaits: int) -> None:
        self._coroutine = coroutine
        self._left = awaits

    def __await__(self) -> Generator[Any, Any, Any]:
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                waited = self._coroutine.throw(error) if error else self._coroutine.send(value)
            except StopIteration as e:
                return e.value
            value = error = None
            if self._left == 0:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            self._left -= 1
            try:
                value = yield waited
            except BaseException as e:
                error = e


async def dying(coroutine: Coroutine[Any, Any, Any], awaits: int | None) -> Any:
    """Return what the coroutine does, or None where it died at its await number `awaits`."""
    if awaits is None:
        return await coroutine

    async def lived() -> Any:
        return await DiesAtAwait(coroutine, awaits)

    task = asyncio.create_task(lived())
    try:
        return await task
    except asyncio.CancelledError:
        return None
    except TickgateError:
        # Cancelled where a driver turns that into an error of its own.
        return None
