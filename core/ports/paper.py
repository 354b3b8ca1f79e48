"""Paper accounts: what they hold, kept for as long as their deals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from core.model.ledger import Listing
    from core.model.venues import Deal, TradingAccount, VenueOrder


class OpenPaperBook(Protocol):
    """One account's book, locked. text: as it was kept, None where there is none yet."""

    text: bytes | None

    async def listing(self, symbol: str) -> Listing:
        """Return what is known of the account and a symbol. Raises: Unavailable."""

    async def keep(
        self, text: bytes, *, busy: bool, deals: Sequence[Deal], ended: Sequence[VenueOrder]
    ) -> None:
        """Keep the book and what happened. busy: whether quotes can change it. Raises: Unavailable."""

    async def happened(self, since_ms: int) -> tuple[Sequence[Deal], Sequence[VenueOrder]]:
        """Return the deals and the orders that ended since, oldest first. Raises: Unavailable."""


class PaperBooks(Protocol):
    """Every paper account's book."""

    def opened(self, account: TradingAccount) -> AbstractAsyncContextManager[OpenPaperBook]:
        """Lock an account's book until left; without an error what was kept is kept. Raises: Unavailable."""

    async def busy(self) -> Sequence[TradingAccount]:
        """Return the accounts whose books quotes can change. Raises: Unavailable."""
