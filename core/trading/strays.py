"""Orders that have ended here and turn up at their venue after all: told with an alert, and taken back there.

Whoever gave the order was told that it is over, nothing counts it against limits and margin any more, and what ended
does not begin again. What it was filled by meanwhile stays: deals are the truth.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from core.errors.exceptions import Unavailable, UnknownOutcome
from core.model.ledger import Break, BreakSort, OrderEntry
from core.model.orders import OrderState
from core.model.venues import TradingAccount, VenueOrder
from core.ports.access import Work
from core.ports.venues import Venue
from core.trading.settling import Settlement

log = structlog.get_logger(__name__)

SHOWN_LATE_MS: Final = 5_000
"""A venue may still show for a moment what it has just ended."""
TAKEN_BACK_AT_ONCE_MAX: Final = 16
"""The others are with the next look."""
WORKING: Final = "WORKING_AT_VENUE"
_SURPRISING: Final = frozenset({OrderState.EXPIRED, OrderState.REJECTED})


@dataclass(slots=True, kw_only=True)
class Strays:
    """What one look found. tickets: to be taken back."""

    settlement: Settlement
    tickets: list[str] = field(default_factory=list)
    breaks: list[Break] = field(default_factory=list)

    async def working(self, work: Work, entry: OrderEntry, found: VenueOrder, now_ms: int) -> None:
        """Note an order that works there and has ended here."""
        if entry.code != WORKING:
            if now_ms - entry.updated_at_ms < SHOWN_LATE_MS:
                return
            self._tell(entry, found.ticket, str(found.state))
            await self.settlement.move(
                work,
                entry,
                entry.state,
                what="order.resurfaced",
                detail={"venue_order": found.ticket, "state": str(found.state)},
                code=WORKING,
                reason="the venue has it after all; it is taken back there",
                venue_order=found.ticket,
            )
        self.tickets.append(found.ticket)

    def filled(self, entry: OrderEntry, ticket: str) -> None:
        """Note an order that was filled there after it had ended here. A cancellation that came late is no surprise."""
        if entry.state in _SURPRISING or entry.code in ("MISSING_AT_VENUE", WORKING):
            self._tell(entry, ticket, "FILLED")

    def _tell(self, entry: OrderEntry, ticket: str, there: str) -> None:
        detail = {"ledger": str(entry.state), "venue": there, "ticket": ticket}
        self.breaks.append(Break(sort=BreakSort.RESURFACED, subject=entry.order.id, detail=detail))
        log.error("order.resurfaced", order=entry.order.id, account=entry.order.account, **detail)


async def take_back(venue: Venue, account: TradingAccount, tickets: Sequence[str]) -> None:
    """Ask a venue to end orders; what came of it is for the next look. Nothing is locked meanwhile."""
    for ticket in tickets[:TAKEN_BACK_AT_ONCE_MAX]:
        try:
            report = await venue.cancel(account, ticket)
        except (Unavailable, UnknownOutcome) as e:
            log.warning("order.not_taken_back", account=account.id, ticket=ticket, error=str(e))
        else:
            log.info("order.taken_back", account=account.id, ticket=ticket, state=report.state)
