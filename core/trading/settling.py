"""What the ledger makes of what a venue says: fills first, for they are the truth, then the order's state."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import structlog

from core.model.audit import AuditEvent
from core.model.ledger import Command, Fill, OrderEntry, Standing
from core.model.orders import TERMINAL, OrderState, may_move
from core.model.venues import Deal, VenueReport
from core.ports.access import Work
from core.ports.audit import AuditTrail
from core.ports.orders import OrderLedger
from core.telemetry import metrics
from core.telemetry.tracing import current_traceparent
from core.trading.positions import applied

log = structlog.get_logger(__name__)

ACTOR = "service:trading"
_S = OrderState
_WAITING = frozenset({_S.PENDING_CANCEL, _S.PENDING_MODIFY})
_LIVE = frozenset({_S.ACCEPTED, _S.PARTIALLY_FILLED})
_ENDED_UNFILLED = frozenset({_S.EXPIRED, _S.REJECTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """Moves orders on, with their audit. The account of whatever is settled is locked by the caller."""

    ledger: OrderLedger
    audit: AuditTrail

    async def move(
        self,
        work: Work,
        entry: OrderEntry,
        state: OrderState,
        *,
        what: str,
        detail: dict[str, Any] | None = None,
        done: Command | None = None,
        actor: str = ACTOR,
        **changes: Any,
    ) -> OrderEntry:
        """Move an order on and write it down twice: among its events, and where nobody can change it."""
        moved = await self.ledger.move(work, entry, state, what=what, detail=detail, done=done, **changes)
        event = AuditEvent(
            type=what,
            actor=actor,
            account=entry.order.account,
            order=entry.order.id,
            symbol=entry.order.symbol,
            strategy=entry.order.strategy,
            facts={"from": str(entry.state), "to": str(state), **(detail or {})},
            trace=current_traceparent() or entry.traceparent,
        )
        await self.audit.append(work, event)
        metrics.ORDERS_MOVED.labels(state).inc()
        return moved

    async def settle(self, work: Work, entry: OrderEntry, report: VenueReport, *, what: str) -> OrderEntry:
        """Take in a venue's report of an order."""
        await self.record_of(work, entry, report)
        return await self.take_state(work, entry, report, what=what)

    async def record_of(self, work: Work, entry: OrderEntry, report: VenueReport) -> None:
        """Keep the deals of a report as fills of its order, whose tag not every deal bears."""
        names = {entry.order.id, entry.venue_order, report.order} - {""}
        await self.record(work, entry.order.account, report.deals, dict.fromkeys(names, entry.order.id))

    async def record(
        self, work: Work, account: str, deals: Iterable[Deal], ours: dict[str, str]
    ) -> Sequence[Fill]:
        """Keep deals as fills, and what they make of the positions. ours: order ids by tag and by ticket."""
        fills = [fill_of(account, deal, ours.get(deal.tag) or ours.get(deal.order)) for deal in deals]
        fresh = await self.ledger.record_fills(work, fills)
        if fresh:
            standing = await self.ledger.lock_account(work, account)
            held = await self.ledger.holdings(work, account)
            await self.ledger.hold(work, account, applied(held, fresh, hedging=standing.account.hedging))
        for fill in fresh:
            await self.audit.append(work, _filled(fill))
        return fresh

    async def take_state(
        self,
        work: Work,
        entry: OrderEntry,
        report: VenueReport,
        *,
        what: str,
        answered: bool = False,
        **changes: Any,
    ) -> OrderEntry:
        """Move an order to where the report and its fills say it is.

        answered: the report answers what the order waits for; another one leaves it waiting.
        """
        volume, price = await self.ledger.filled(work, entry.order.id)
        state = state_by(entry, report.state, volume)
        if entry.state in _WAITING and state in _LIVE and not answered:
            state = entry.state
        if entry.state in _ENDED_UNFILLED and volume > entry.filled_volume:
            # It cannot be moved any more, but what was filled is told, and somebody has to look.
            log.error("order.filled_after_end", order=entry.order.id, state=entry.state, filled=str(volume))
            state = entry.state
        changes = {
            **changes,
            "filled_volume": min(max(volume, entry.filled_volume), entry.order.volume),
            "average_price": price,
            "venue_order": report.order or entry.venue_order,
            "retcode": report.retcode if report.retcode is not None else entry.retcode,
            "code": report.code,
            "reason": report.reason,
            "absent_since_ms": None if state is not _S.UNKNOWN else entry.absent_since_ms,
        }
        if state is entry.state and not _differs(entry, changes):
            return entry
        if state is not entry.state and not may_move(entry.state, state):
            log.warning("order.report_ignored", order=entry.order.id, state=entry.state, reported=state)
            return entry
        if volume > entry.order.volume:
            log.error(
                "order.overfilled", order=entry.order.id, volume=str(entry.order.volume), filled=str(volume)
            )
        detail = _detail(report, volume)
        moved = await self.move(work, entry, state, what=what, detail=detail, **changes)
        await self._count_rejects(work, entry, moved)
        if state is _S.UNKNOWN and entry.state is not _S.UNKNOWN:
            log.error(
                "order.unknown", order=entry.order.id, account=entry.order.account, reason=report.reason
            )
        return moved

    async def _count_rejects(self, work: Work, before: OrderEntry, after: OrderEntry) -> None:
        if after.state is before.state or before.state in TERMINAL:
            return
        standing: Standing = await self.ledger.lock_account(work, after.order.account)
        if after.state is _S.REJECTED:
            await self.ledger.stand(
                work, replace(standing, consecutive_rejects=standing.consecutive_rejects + 1)
            )
        elif after.state is not _S.UNKNOWN and standing.consecutive_rejects:
            await self.ledger.stand(work, replace(standing, consecutive_rejects=0))


def state_by(entry: OrderEntry, said: OrderState, filled: Decimal) -> OrderState:
    """Return where an order is: deals tell what is filled, the venue the rest."""
    if filled >= entry.order.volume:
        return _S.FILLED
    if said is _S.FILLED:
        # Its deals are still to come.
        said = _S.ACCEPTED
    if said is _S.ACCEPTED and filled > 0:
        said = _S.PARTIALLY_FILLED
    if said is _S.REJECTED and (filled > 0 or entry.state in _WAITING):
        # It worked before the venue threw it out.
        said = _S.CANCELED
    if entry.state in _WAITING and said is _S.UNKNOWN:
        # The order is where it was; only what was asked of it is not known.
        return entry.state
    return said


def fill_of(account: str, deal: Deal, order_id: str | None) -> Fill:
    return Fill(
        account=account,
        deal=deal.ticket,
        order=order_id,
        venue_order=deal.order,
        position=deal.position,
        symbol=deal.symbol,
        side=deal.side,
        volume=deal.volume,
        price=deal.price,
        profit=deal.profit,
        commission=deal.commission,
        at_ms=deal.at_ms,
    )


def _differs(entry: OrderEntry, changes: dict[str, Any]) -> bool:
    asked = entry.order
    return any(
        value != (getattr(entry, name) if hasattr(entry, name) else getattr(asked, name))
        for name, value in changes.items()
    )


def _detail(report: VenueReport, filled: Decimal) -> dict[str, Any]:
    said: dict[str, Any] = {"venue_order": report.order, "filled_volume": f"{filled:f}"}
    if report.retcode is not None:
        said["retcode"] = report.retcode
    if report.code:
        said |= {"code": report.code, "reason": report.reason}
    return said


def _filled(fill: Fill) -> AuditEvent:
    return AuditEvent(
        type="order.fill",
        actor=ACTOR,
        account=fill.account,
        order=fill.order or "",
        symbol=fill.symbol,
        facts={
            "deal": fill.deal,
            "venue_order": fill.venue_order,
            "position": fill.position,
            "side": str(fill.side),
            "volume": f"{fill.volume:f}",
            "price": f"{fill.price:f}",
            "profit": f"{fill.profit:f}",
            "at_ms": fill.at_ms,
        },
    )
