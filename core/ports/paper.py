"""Paper accounts: what they hold, kept together with their deals.

Nothing is locked while somebody thinks: a book is read with its version, and kept only if it still has that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from core.model.paper import PaperPage, PaperPast
    from core.model.venues import Deal, TradingAccount, VenueOrder


class PaperBooks(Protocol):
    """Every paper account's book."""

    async def opened(self, account: TradingAccount, symbol: str = "") -> PaperPage:
        """Return a book as it is. symbol: one to be known beside its own. Raises: Unavailable."""

    async def viewed(self, account: TradingAccount, since_ms: int) -> tuple[PaperPage, PaperPast]:
        """Return a book, and what happened since, as they were at the same moment. Raises: Unavailable."""

    async def past_of(self, account: TradingAccount, ticket: str) -> PaperPast:
        """Return what happened of one order. Raises: Unavailable."""

    async def keep(
        self,
        account: TradingAccount,
        page: PaperPage,
        text: bytes,
        *,
        symbols: Collection[str],
        busy: bool,
        deals: Sequence[Deal],
        ended: Sequence[VenueOrder],
    ) -> bool:
        """Keep what was made of a page, all or nothing. False: it was changed since, or read too long ago.

        symbols: of all the book holds; busy: whether quotes can change it. It is lost by a crash at most together with
        all that anybody could have made of it. Raises: UnknownOutcome.
        """

    async def busy(self) -> Sequence[TradingAccount]:
        """Return the accounts whose books quotes can change. Raises: Unavailable."""
