"""An account for tests of what ledger and venue make of each other: orders in any state, and a venue that is told."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Final

from ulid import ULID

from core.errors.exceptions import Unavailable
from core.infrastructure.central_hub import Hub, open_hub
from core.model.ledger import BreakSort, Command, Fill, Holding, OrderEntry, OutboxRow
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
from core.settings import Settings
from core.trading.dispatch import Dispatcher
from core.trading.reconciliation import Patience, Reconciler
from core.trading.settling import Settlement
from tests.trading_floors import SYMBOL, account, keep_records

TENANT: Final = "demo"
TICKET: Final = "7"
VOLUME, PRICE = Decimal("0.1"), Decimal("1.1")
PATIENCE: Final = Patience(sending_s=15, absent_s=30)
SHOWN_AT_MS: Final = 1_790_000_000_000
NEEDS: Final = {"postgres", "order_ledger", "risk_book", "audit", "trading_reads"}
_S = OrderState
_WAY: Final[Mapping[OrderState, tuple[OrderState, ...]]] = {
    _S.QUEUED: (),
    _S.SENDING: (_S.SENDING,),
    _S.UNKNOWN: (_S.SENDING, _S.UNKNOWN),
    _S.ACCEPTED: (_S.SENDING, _S.ACCEPTED),
    _S.CANCELED: (_S.SENDING, _S.ACCEPTED, _S.CANCELED),
    _S.PENDING_CANCEL: (_S.SENDING, _S.ACCEPTED, _S.PENDING_CANCEL),
    _S.PENDING_MODIFY: (_S.SENDING, _S.ACCEPTED, _S.PENDING_MODIFY),
}
_TICKETLESS: Final = frozenset({_S.QUEUED, _S.SENDING, _S.UNKNOWN})


class NoQuotes:
    """A market nobody quotes."""

    async def get(self, _source: str, _symbols: Sequence[str] | None) -> Mapping[str, bytes]:
        return {}


@dataclass
class ToldVenue:
    """The `Venue` port. It shows what it is told to and answers `answer`, not before `may_answer`; or is away."""

    orders: list[VenueOrder] = field(default_factory=list)
    ended: list[VenueOrder] = field(default_factory=list)
    deals: list[Deal] = field(default_factory=list)
    positions: list[VenuePosition] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    asked_since_ms: list[int] = field(default_factory=list)
    at_ms: int = SHOWN_AT_MS
    answer: VenueReport = field(default_factory=lambda: VenueReport(state=_S.ACCEPTED, order=TICKET))
    away: bool = False
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    may_show: asyncio.Event = field(default_factory=asyncio.Event)
    shown: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_answer.set()
        self.may_show.set()

    async def send(self, _account: TradingAccount, _order: Order) -> VenueReport:
        return await self._answered()

    async def cancel(self, _account: TradingAccount, order: str) -> VenueReport:
        self.cancelled.append(order)
        return await self._answered()

    async def modify(self, _account: TradingAccount, _order: str, _change: OrderChange) -> VenueReport:
        return await self._answered()

    async def view(self, _account: TradingAccount, since_ms: int) -> VenueView:
        if self.away:
            raise Unavailable("the venue is away")
        self.asked_since_ms.append(since_ms)
        money = Decimal(10_000)
        seen = VenueView(
            at_ms=self.at_ms,
            balance=money,
            equity=money,
            margin=Decimal(0),
            margin_free=money,
            orders=tuple(self.orders),
            ended=tuple(self.ended),
            deals=tuple(self.deals),
            positions=tuple(self.positions),
        )
        self.shown.set()
        await self.may_show.wait()
        return seen

    async def _answered(self) -> VenueReport:
        answer = self.answer
        self.asked.set()
        await self.may_answer.wait()
        return answer


@dataclass
class Reconciled:
    """One account and its venue."""

    hub: Hub
    name: str
    venue: ToldVenue

    @property
    def settlement(self) -> Settlement:
        return Settlement(ledger=self.hub["order_ledger"], audit=self.hub["audit"])

    @property
    def dispatcher(self) -> Dispatcher:
        return Dispatcher(
            ledger=self.hub["order_ledger"],
            risk=self.hub["risk_book"],
            settlement=self.settlement,
            venues={"paper": self.venue},
            send_timeout_s=20.0,
        )

    @property
    def reconciler(self) -> Reconciler:
        return Reconciler(
            ledger=self.hub["order_ledger"],
            settlement=self.settlement,
            venues={"paper": self.venue},
            quotes=NoQuotes(),
            patience=PATIENCE,
            new_id=lambda: str(ULID()),
        )

    async def account(self) -> TradingAccount:
        accounts: Sequence[TradingAccount] = await self.hub["order_ledger"].accounts()
        return next(one for one in accounts if one.id == self.name)

    async def look(self) -> bool:
        """Compare the account with its venue once."""
        return await self.reconciler.reconcile(await self.account())

    async def later(self, seconds: float) -> None:
        """Let time pass since orders were sent, missed and moved."""
        async with self.hub["postgres"].acquire() as connection, connection.transaction():
            await connection.execute("set local session_replication_role = replica")
            await connection.execute(
                "update orders set updated_at = updated_at - make_interval(secs => $2),"
                " sent_at = sent_at - make_interval(secs => $2),"
                " absent_since = absent_since - make_interval(secs => $2) where account = $1",
                self.name,
                seconds,
            )

    async def order(self, state: OrderState, kind: OrderType = OrderType.LIMIT) -> OrderEntry:
        """Keep an order that has come as far as `state`; from ACCEPTED on its ticket is TICKET."""
        ledger = self.hub["order_ledger"]
        order = Order(
            id=str(ULID()),
            tenant=TENANT,
            account=self.name,
            symbol=SYMBOL,
            side=Side.BUY,
            type=kind,
            volume=VOLUME,
            price=None if kind is OrderType.MARKET else PRICE,
        )
        async with ledger.work(TENANT) as work:
            await ledger.lock_account(work, self.name)
            entry: OrderEntry = await ledger.add(work, OrderEntry(order=order, state=_S.QUEUED, version=1))
            now_ms = await ledger.now_ms(work)
            for step in _WAY[state]:
                changes: dict[str, Any] = {"sent_at_ms": now_ms} if step is _S.SENDING else {}
                if step not in _TICKETLESS:
                    changes["venue_order"] = TICKET
                entry = await self.settlement.move(work, entry, step, what="order.prepared", **changes)
            if state is not _S.QUEUED:
                await ledger.done(work, order.id, Command.SEND)
        return entry

    async def entry(self, order_id: str) -> OrderEntry:
        found: OrderEntry = await self.hub["trading_reads"].order(TENANT, order_id)
        return found

    async def every_order(self) -> list[OrderEntry]:
        return list(
            await self.hub["trading_reads"].orders(
                TENANT, before=None, limit=100, where={"account": self.name}
            )
        )

    async def words(self, order_id: str) -> list[str]:
        """Return what happened to an order, without what prepared it."""
        events = await self.hub["trading_reads"].events(TENANT, order_id)
        return [one.what for one in events if one.what not in {"order.prepared", "order.submitted"}]

    async def fills(self) -> list[Fill]:
        reads = self.hub["trading_reads"]
        return list(await reads.fills(TENANT, after=None, limit=100, where={"account": self.name}))

    async def holdings(self) -> list[Holding]:
        return list(await self.hub["trading_reads"].positions(TENANT, self.name))

    async def breaks(self) -> list[BreakSort]:
        async with self.hub["postgres"].acquire() as connection:
            rows = await connection.fetch("select sort from breaks where account = $1", self.name)
        return [BreakSort(row["sort"]) for row in rows]

    async def commands(self, order_id: str) -> list[Command]:
        async with self.hub["postgres"].acquire() as connection:
            rows = await connection.fetch(
                "select command from order_outbox where order_id = $1 order by id", order_id
            )
        return [Command(row["command"]) for row in rows]

    def row(self, order_id: str, command: Command, change: OrderChange | None = None) -> OutboxRow:
        return OutboxRow(
            id=0, tenant=TENANT, account=self.name, order=order_id, command=command, change=change, tries=1
        )


@asynccontextmanager
async def reconciled(settings: Settings, *, hedging: bool = False) -> AsyncIterator[Reconciled]:
    """Open an account that has been matched with its empty venue once."""
    name = uuid.uuid4().hex[:12]
    body = account(margin_mode="hedging" if hedging else "netting")
    await keep_records(settings, TENANT, {name: body}, instrument=False)
    async with open_hub(settings, NEEDS) as hub:
        async with hub["postgres"].acquire() as connection:
            await connection.execute(
                "insert into sources (name, tenant, token_hash) values ('demo', 'demo', repeat('0', 64))"
                " on conflict do nothing"
            )
        opened = Reconciled(hub=hub, name=name, venue=ToldVenue())
        assert await opened.look()
        yield opened


def shown(tag: str, state: OrderState, *, ticket: str = TICKET, left: Decimal = VOLUME) -> VenueOrder:
    """Return an order as a venue shows it."""
    return VenueOrder(
        ticket=ticket,
        tag=tag,
        symbol=SYMBOL,
        side=Side.BUY,
        type=OrderType.LIMIT,
        state=state,
        volume=VOLUME,
        volume_left=left,
        price=PRICE,
        at_ms=SHOWN_AT_MS,
    )


def dealt(tag: str, volume: Decimal = VOLUME, *, ticket: str = "70", order: str = TICKET) -> Deal:
    """Return a deal that bought, into position 1."""
    return Deal(
        ticket=ticket,
        tag=tag,
        order=order,
        position="1",
        symbol=SYMBOL,
        side=Side.BUY,
        volume=volume,
        price=PRICE,
        at_ms=SHOWN_AT_MS,
    )


def held(
    volume: Decimal = VOLUME, *, ticket: str = "1", tag: str = "", side: Side = Side.BUY
) -> VenuePosition:
    """Return a position as a venue shows it."""
    return VenuePosition(
        ticket=ticket, tag=tag, symbol=SYMBOL, side=side, volume=volume, price_open=PRICE, at_ms=SHOWN_AT_MS
    )


def sold(deal: Deal, **changes: Any) -> Deal:
    return replace(deal, side=Side.SELL, **changes)
