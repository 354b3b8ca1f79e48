"""From the ledger to the venue: SENDING is committed before the venue is asked, and only QUEUED becomes SENDING.

So an order is sent at most once, whoever dies in between. What was sent and not answered is for reconciliation.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from core.errors.exceptions import NotFound, Unavailable, UnknownOutcome
from core.model.ledger import VIEW_AGE_MS_MAX, Command, OrderEntry, OutboxRow, Standing
from core.model.orders import TERMINAL, OrderState
from core.model.risk import Halted
from core.model.venues import OrderChange, TradingAccount, VenueReport
from core.ports.access import Work
from core.ports.orders import OrderLedger
from core.ports.risk import RiskBook
from core.ports.venues import Venue
from core.telemetry import tracing
from core.trading.halting import deny, growing, halted_for, reducing_only
from core.trading.settling import Settlement

log = structlog.get_logger(__name__)

_S = OrderState
_AWAITING: Final = {Command.CANCEL: _S.PENDING_CANCEL, Command.MODIFY: _S.PENDING_MODIFY}
TOO_LATE: Final = "its time was over before it was sent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatcher:
    """Does what is to be done about orders. venues: by the word an account has for its own."""

    ledger: OrderLedger
    risk: RiskBook
    settlement: Settlement
    venues: Mapping[str, Venue]
    send_timeout_s: float

    async def handle(self, row: OutboxRow) -> None:
        """Do what a row of the outbox says. It goes once it is done; until then somebody comes back to it.

        Raises: Unavailable.
        """
        match row.command:
            case Command.SEND:
                await self.send(row.tenant, row.order)
            case Command.CANCEL:
                await self._cancel(row)
            case Command.MODIFY:
                await self._modify(row)

    async def send(self, tenant: str, order_id: str) -> None:
        """Send an order, if nobody has. Raises: Unavailable: nothing was done."""
        begun = await self._begin(tenant, order_id)
        if begun is None:
            return
        account, entry = begun
        report = await self._ask(account, entry)
        async with self.ledger.work(tenant) as work:
            entry = await self.ledger.locked(work, order_id)
            if entry.state is _S.SENDING or report.deals:
                await self.settlement.settle(work, entry, report, what="order.reported")

    async def _begin(self, tenant: str, order_id: str) -> tuple[TradingAccount, OrderEntry] | None:
        """Commit that the order is being sent; None where it is not to be."""
        async with self.ledger.work(tenant, holding_risk=True) as work:
            try:
                entry = await self.ledger.locked(work, order_id)
            except NotFound:
                return None
            tracing.start(entry.traceparent)
            if entry.state is not _S.QUEUED:
                await self.ledger.done(work, order_id, Command.SEND)
                return None
            order = entry.order
            standing = await self.ledger.lock_account(work, order.account)
            halted = await self.risk.halted(work, account=order.account, strategy=order.strategy)
            if await self._kept_back(work, entry, halted):
                return None
            if not seen_lately(standing, halted.at_ms):
                # Nothing is sent before the account has been matched with its venue; until then it stays to be done.
                return None
            entry = await self.settlement.move(
                work,
                entry,
                _S.SENDING,
                what="order.sending",
                done=Command.SEND,
                sent_at_ms=halted.at_ms,
                absent_since_ms=None,
            )
            return standing.account, entry

    async def _kept_back(self, work: Work, entry: OrderEntry, halted: Halted) -> bool:
        """End an order that may not be sent any more."""
        if halted.by:
            scopes = ", ".join(halted.by)
            await deny(self.settlement, work, entry, halted_for(scopes), scopes)
        elif halted.reducing and await self._may_grow(work, entry):
            await deny(self.settlement, work, entry, reducing_only(), ", ".join(halted.reducing))
        elif late(entry, halted.at_ms):
            await self.settlement.move(
                work,
                entry,
                _S.EXPIRED,
                what="order.expired",
                done=Command.SEND,
                code="TOO_LATE",
                reason="its time was over before it was sent",
            )
        else:
            return False
        return True

    async def _may_grow(self, work: Work, entry: OrderEntry) -> bool:
        """Tell whether the order could let a position grow or turn, with all others that work."""
        order = entry.order
        entries = await self.ledger.in_motion(work, order.account)
        held = await self.ledger.holdings(work, order.account)
        standing = await self.ledger.lock_account(work, order.account)
        return bool(growing(entries, held, (order.id,), hedging=standing.account.hedging))

    async def _ask(self, account: TradingAccount, entry: OrderEntry) -> VenueReport:
        try:
            async with asyncio.timeout(self.send_timeout_s):
                return await self.venues[account.venue].send(account, entry.order)
        except Unavailable as e:
            # Surely not asked. Later would be another market: whoever wants it still asks again.
            return VenueReport(state=_S.REJECTED, code=e.code, reason=e.public)
        except (UnknownOutcome, TimeoutError) as e:
            return VenueReport(state=_S.UNKNOWN, code="UNKNOWN_OUTCOME", reason=str(e) or "no answer in time")

    async def _cancel(self, row: OutboxRow) -> None:
        entry, account = await self._still(row, _S.PENDING_CANCEL)
        if entry is None or account is None:
            return
        report = await self.venues[account.venue].cancel(account, entry.venue_order)
        await self._settle(row, report, "order.cancel_reported")

    async def _modify(self, row: OutboxRow) -> None:
        entry, account = await self._still(row, _S.PENDING_MODIFY)
        change = row.change
        if entry is None or account is None or change is None:
            return
        report = await self.venues[account.venue].modify(account, entry.venue_order, change)
        await self._settle(row, report, "order.modify_reported", change if not report.code else None)

    async def _still(
        self, row: OutboxRow, state: OrderState
    ) -> tuple[OrderEntry | None, TradingAccount | None]:
        """Return the order if it still waits for this; else forget the row."""
        async with self.ledger.work(row.tenant) as work:
            entry = await self.ledger.locked(work, row.order)
            tracing.start(entry.traceparent)
            if entry.state is state:
                return entry, (await self.ledger.lock_account(work, entry.order.account)).account
            await self.ledger.done(work, row.order, row.command)
        return None, None

    async def _settle(
        self, row: OutboxRow, report: VenueReport, what: str, change: OrderChange | None = None
    ) -> None:
        async with self.ledger.work(row.tenant) as work:
            entry = await self.ledger.locked(work, row.order)
            if report.state is _S.UNKNOWN:
                # Asked again later: to cancel or to change twice is to do it once.
                return
            await self.ledger.done(work, row.order, row.command)
            if entry.state in TERMINAL and not report.deals:
                return
            await self.settlement.record_of(work, entry, report)
            changes = changed(change) if change is not None else {}
            # Asked to be cancelled since it was to be changed, it waits for that.
            answered = entry.state is _AWAITING[row.command]
            await self.settlement.take_state(work, entry, report, what=what, answered=answered, **changes)


def seen_lately(standing: Standing, now_ms: int) -> bool:
    """Tell whether the account's venue has been seen within the time that counts as being connected."""
    return standing.viewed_at_ms is not None and now_ms - standing.viewed_at_ms <= VIEW_AGE_MS_MAX


def late(entry: OrderEntry, now_ms: int) -> bool:
    """Tell whether an order's time was over before anybody sent it."""
    order = entry.order
    waited_ms = now_ms - order.submitted_at_ms
    too_old = order.valid_for_ms is not None and waited_ms > order.valid_for_ms
    return too_old or (order.expires_at_ms is not None and order.expires_at_ms <= now_ms)


def changed(change: OrderChange) -> dict[str, object]:
    """Return the fields a change sets."""
    fields = {name: getattr(change, name) for name in OrderChange.__dataclass_fields__}
    return {name: value for name, value in fields.items() if value is not None}
