"""Venues: where orders are executed. A venue does what it is asked each time it is asked; once is our business."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from core.model.orders import Order
    from core.model.venues import OrderChange, TradingAccount, VenueReport, VenueView


class Venue(Protocol):
    """One sort of venue. Refusals are reports, not errors.

    Of every method Unavailable means that the venue has surely not been asked; UnknownOutcome that nobody can say.
    """

    async def send(self, account: TradingAccount, order: Order) -> VenueReport:
        """Ask for an order's execution; its id is the tag. Raises: Unavailable, UnknownOutcome."""

    async def cancel(self, account: TradingAccount, order: str) -> VenueReport:
        """Take back a working order, by its ticket. One that has ended already is reported as it ended.

        Raises: Unavailable, UnknownOutcome.
        """

    async def modify(self, account: TradingAccount, order: str, change: OrderChange) -> VenueReport:
        """Change a working order, by its ticket. Raises: Unavailable, UnknownOutcome."""

    async def view(self, account: TradingAccount, since_ms: int) -> VenueView:
        """Return all that is there, and what ended since. Raises: Unavailable."""
