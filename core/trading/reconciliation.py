"""What the ledger has and what a venue has, held against each other: matched, missing, external, or not as much.

The same comparison brings in what happened at the venue by itself: pending orders that were filled, stops that were
hit. Deals are the truth for fills; the venue is the truth for what works and what is held.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import structlog

from core.errors.exceptions import NotFound, Unavailable
from core.model.ledger import (
    ID_LENGTH,
    Break,
    BreakSort,
    Command,
    OrderEntry,
    Standing,
)
from core.model.orders import OrderState, OrderType
from core.model.venues import (
    BEGUN_WITHIN_S,
    TradingAccount,
    VenueOrder,
    VenueReport,
    VenueView,
)
from core.ports.access import Work
from core.ports.orders import OrderLedger
from core.ports.venues import Venue
from core.trading.adoption import adopted, external_order
from core.trading.comparison import Comparison, holding_at, stood
from core.trading.dispatch import late
from core.trading.hindsight import Hindsight, since_ms
from core.trading.market import Quotes, market_of
from core.trading.positions import net
from core.trading.settling import Settlement
from core.trading.strays import Strays, take_back
from core.trading.unanswered import give_up, give_up_unseen

log = structlog.get_logger(__name__)

HELD_S_MAX: Final = 0.4
"""A kill switch waits for the account, too, and has a second."""
ARRIVED_WITHIN_S: Final = BEGUN_WITHIN_S + 1
"""However little patience is set: what was sent since may still be on its way to a venue that will carry it out."""
TOO_MUCH: Final = "VIEW_TOO_LARGE"
"""What a venue says that cannot show so much at once."""
_PUZZLING: Final = frozenset({BreakSort.QUANTITY, BreakSort.RESURFACED})
_S = OrderState
_AT_VENUE: Final = frozenset({_S.ACCEPTED, _S.PARTIALLY_FILLED, _S.PENDING_CANCEL, _S.PENDING_MODIFY})


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """sending_s: an order nobody has answered for by then is UNKNOWN; absent_s: how long a venue must miss one."""

    sending_s: float
    absent_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciler:
    """Matches accounts with their venues. new_id: of orders somebody else put there."""

    ledger: OrderLedger
    settlement: Settlement
    venues: Mapping[str, Venue]
    quotes: Quotes
    patience: Patience
    new_id: Callable[[], str]
    _holding: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Whoever holds an account asks with a second connection: one at a time, or they wait for each other's."""
    _hindsight: Hindsight = field(default_factory=Hindsight)

    async def reconcile(self, account: TradingAccount) -> bool:
        """Bring an account's ledger to what its venue says. False: it was being changed; come again.

        Raises: Unavailable.
        """
        async with self.ledger.work(account.tenant) as work:
            before = await self.ledger.lock_account(work, account.id)
        key, now_s = (account.tenant, account.id), asyncio.get_running_loop().time()
        far = self._hindsight.is_far(key, now_s)
        # Before the account is locked: Redis may be slow, orders wait for the account, and kill switches for orders.
        try:
            view, notional = await self._seen(account, before, far=far)
        except Unavailable:
            await give_up_unseen(self.settlement, account, self.patience.sending_s)
            raise
        if far:
            self._hindsight.looked(key, now_s)
        async with self.ledger.work(account.tenant) as work:
            standing = await self.ledger.lock_account(work, account.id)
            if standing.moves != before.moves:
                # The view may be older than what we know by now.
                if far:
                    self._hindsight.wonder(key)
                return False
            comparison = await self._compared(work, standing, view, notional)
        await self._conclude(comparison)
        return True

    async def reconcile_held(self, account: TradingAccount) -> None:
        """Do the same to an account that is never still: its orders wait meanwhile, for a moment at the most.

        Raises: Unavailable.
        """
        async with self._holding, self.ledger.work(account.tenant) as work:
            standing = await self.ledger.lock_account(work, account.id)
            try:
                async with asyncio.timeout(HELD_S_MAX):
                    view, notional = await self._seen(account, standing)
            except TimeoutError as e:
                raise Unavailable("the venue is too slow for an account that never rests") from e
            comparison = await self._compared(work, standing, view, notional)
        await self._conclude(comparison)

    async def _conclude(self, comparison: Comparison) -> None:
        """Do what follows from a comparison and needs no lock."""
        account = comparison.account
        _tell(account, comparison.breaks)
        if any(one.sort in _PUZZLING for one in comparison.breaks):
            self._hindsight.wonder((account.tenant, account.id))
        await take_back(self.venues[account.venue], account, comparison.strays.tickets)

    async def _seen(
        self, account: TradingAccount, standing: Standing, *, far: bool = False
    ) -> tuple[VenueView, Decimal | None]:
        """Return the venue's view of an account, and what its positions are worth."""
        venue, until_ms = self.venues[account.venue], standing.deals_until_ms
        try:
            view = await venue.view(account, since_ms(until_ms, far=far))
        except Unavailable as e:
            if not far or e.code != TOO_MUCH:
                raise
            log.warning("reconcile.not_so_far", account=account.id, error=str(e))
            view = await venue.view(account, since_ms(until_ms, far=False))
        return view, await self._notional(account, view)

    async def _compared(
        self, work: Work, standing: Standing, view: VenueView, notional: Decimal | None
    ) -> Comparison:
        """Compare a locked account with a view of it, and return what was found."""
        account = standing.account
        comparison = Comparison(
            account=account,
            view=view,
            notional=notional,
            now_ms=await self.ledger.now_ms(work),
            known=await self.ledger.in_motion(work, account.id),
            strays=Strays(settlement=self.settlement),
        )
        await self._compare(work, comparison, first=standing.reconciled_at_ms is None)
        return comparison

    async def _compare(self, work: Work, comparison: Comparison, *, first: bool) -> None:
        await self._take_deals(work, comparison)
        for entry in comparison.known:
            await self._match(work, comparison, entry)
        await self._adopt(work, comparison)
        await self._hold(work, comparison, first=first)
        comparison.breaks += comparison.strays.breaks
        # It counts refused orders too, and those may just have changed.
        standing = await self.ledger.lock_account(work, comparison.account.id)
        await self.ledger.stand(work, stood(standing, comparison))
        await self.ledger.note_breaks(work, comparison.account.id, comparison.breaks)

    async def _take_deals(self, work: Work, comparison: Comparison) -> None:
        ours = {entry.order.id: entry.order.id for entry in comparison.known}
        ours |= {entry.venue_order: entry.order.id for entry in comparison.known if entry.venue_order}
        # A view shows what happened for a minute, over and over: most of it is known.
        deals = await self.ledger.unrecorded(work, comparison.account.id, comparison.view.deals)
        for deal in deals:
            if deal.tag in ours or deal.order in ours:
                continue
            # An order that ended here may still be filled there.
            entry = await self.ledger.by_venue_order(work, comparison.account.id, deal.order)
            if entry is None and len(deal.tag) == ID_LENGTH:
                entry = await self._ended(work, comparison.account.id, deal.tag)
            if entry is not None:
                ours[deal.order] = entry.order.id
        fresh = await self.settlement.record(work, comparison.account.id, deals, ours)
        ended = {fill.order for fill in fresh if fill.order} - {entry.order.id for entry in comparison.known}
        for order_id in sorted(ended):
            entry = await self.ledger.locked(work, order_id)
            comparison.strays.filled(entry, entry.venue_order)
            report = VenueReport(state=_S.ACCEPTED, order=entry.venue_order)
            await self.settlement.take_state(work, entry, report, what="order.filled_after_end")

    async def _ended(self, work: Work, account: str, order_id: str) -> OrderEntry | None:
        """Return the account's order of that id, which ended before anybody knew its ticket."""
        try:
            entry = await self.ledger.found(work, order_id)
        except NotFound:
            return None
        return entry if entry.order.account == account else None

    async def _match(self, work: Work, comparison: Comparison, entry: OrderEntry) -> None:
        found = comparison.reported(entry)
        if entry.state is _S.QUEUED:
            return
        if found is not None:
            await self._take(work, entry, found)
        elif comparison.traded(entry):
            report = VenueReport(state=_S.ACCEPTED, order=entry.venue_order)
            await self.settlement.take_state(work, entry, report, what="order.reconciled")
        else:
            await self._absent(work, comparison, entry)

    async def _take(self, work: Work, entry: OrderEntry, found: VenueOrder) -> None:
        report = VenueReport(state=found.state, order=found.ticket)
        if entry.state in {_S.PENDING_CANCEL, _S.PENDING_MODIFY} and found.state in {
            _S.ACCEPTED,
            _S.PARTIALLY_FILLED,
        }:
            # What was asked of it is still to be answered.
            report = VenueReport(state=entry.state, order=found.ticket)
            await self.settlement.take_state(work, entry, report, what="order.reconciled")
            return
        levels = {
            "price": found.price,
            "stop_price": found.stop_price,
            "stop_loss": found.stop_loss,
            "take_profit": found.take_profit,
        }
        changes: dict[str, Any] = (
            levels if found.state in _AT_VENUE and entry.order.type is not OrderType.MARKET else {}
        )
        await self.settlement.take_state(work, entry, report, what="order.reconciled", **changes)

    async def _absent(self, work: Work, comparison: Comparison, entry: OrderEntry) -> None:
        """The venue shows nothing of it. Once may be too early; only twice, far apart, is proof."""
        now_ms, seen_ms = comparison.now_ms, entry.absent_since_ms
        if entry.state is _S.SENDING:
            await give_up(self.settlement, work, entry, now_ms, self.patience.sending_s)
            return
        if seen_ms is None:
            await self.settlement.move(work, entry, entry.state, what="order.absent", absent_since_ms=now_ms)
            return
        if now_ms - seen_ms < self.patience.absent_s * 1_000:
            return
        if entry.state is _S.UNKNOWN:
            if now_ms - (entry.sent_at_ms or 0) >= ARRIVED_WITHIN_S * 1_000:
                await self._never_arrived(work, entry, now_ms)
            return
        comparison.breaks.append(
            Break(sort=BreakSort.MISSING, subject=entry.order.id, detail={"state": str(entry.state)})
        )
        report = VenueReport(
            state=_S.CANCELED, code="MISSING_AT_VENUE", reason="the venue does not have it any more"
        )
        await self.settlement.take_state(work, entry, report, what="order.missing")

    async def _never_arrived(self, work: Work, entry: OrderEntry, now_ms: int) -> None:
        """Send again only what is still wanted: a market order's market has gone."""
        if entry.order.type is OrderType.MARKET or late(entry, now_ms):
            await self.settlement.move(
                work,
                entry,
                _S.EXPIRED,
                what="order.never_arrived",
                code="NEVER_ARRIVED",
                reason="the venue has never seen it, and its time is over",
                absent_since_ms=None,
            )
            return
        queued = await self.settlement.move(
            work, entry, _S.QUEUED, what="order.never_arrived", code="", reason="", absent_since_ms=None
        )
        await self.ledger.put(work, queued, Command.SEND)

    async def _adopt(self, work: Work, comparison: Comparison) -> None:
        """Keep what somebody else put at the venue, marked so."""
        known = {entry.order.id for entry in comparison.known} | {
            entry.venue_order for entry in comparison.known if entry.venue_order
        }
        for found in comparison.view.orders:
            if found.tag in known or found.ticket in known:
                continue
            over = await self.ledger.by_venue_order(work, comparison.account.id, found.ticket)
            if over is None and len(found.tag) == ID_LENGTH:
                over = await self._ended(work, comparison.account.id, found.tag)
            if over is not None:
                over = await self.ledger.locked(work, over.order.id)
                await comparison.strays.working(work, over, found, comparison.now_ms)
                continue
            entry = external_order(comparison.account, found, self.new_id())
            await self.ledger.adopt(work, entry)
            await self.settlement.audit.append(work, adopted(entry))
            comparison.breaks.append(
                Break(
                    sort=BreakSort.EXTERNAL,
                    subject=found.ticket,
                    detail={"symbol": found.symbol, "side": str(found.side), "volume": f"{found.volume:f}"},
                )
            )

    async def _hold(self, work: Work, comparison: Comparison, *, first: bool) -> None:
        """Take the venue's positions. Where the deals we know would make others, that is a break."""
        ours = await self.ledger.holdings(work, comparison.account.id)
        theirs = [holding_at(comparison.account.id, one) for one in comparison.view.positions]
        symbols = sorted({one.symbol for one in (*ours, *theirs)})
        for symbol in symbols:
            here, there = net(ours, symbol), net(theirs, symbol)
            if here != there:
                comparison.breaks.append(
                    Break(
                        sort=BreakSort.EXTERNAL if first else BreakSort.QUANTITY,
                        subject=symbol,
                        detail={"ledger": f"{here:f}", "venue": f"{there:f}"},
                    )
                )
        if list(ours) != theirs:
            await self.ledger.hold(work, comparison.account.id, theirs)

    async def _notional(self, account: TradingAccount, view: VenueView) -> Decimal | None:
        total = Decimal(0)
        async with self.ledger.work(account.tenant) as work:
            for symbol in sorted({one.symbol for one in view.positions}):
                listing = await self.ledger.listing(work, account.id, symbol)
                market = await market_of(symbol, listing, self.quotes)
                if market.terms is None or market.rate is None:
                    return None
                volumes = [one.volume * one.price_open for one in view.positions if one.symbol == symbol]
                total += sum(volumes) * market.terms.contract_size * market.rate
        return total


def _tell(account: TradingAccount, breaks: Sequence[Break]) -> None:
    for found in breaks:
        log.warning(
            "reconcile.break", account=account.id, sort=found.sort, subject=found.subject, **found.detail
        )
