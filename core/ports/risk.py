"""What somebody has set of risk: limits, trading states, kill switches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from core.model.risk import RiskRules
    from core.ports.access import Work


class RiskBook(Protocol):
    """What holds for an order, read so that nobody can engage a kill switch between that and the end of the work."""

    async def rules(self, work: Work, *, account: str, strategy: str, symbol: str) -> RiskRules:
        """Return what holds for an order. Raises: Unavailable, Corrupt: what was set cannot be read; both deny."""

    async def halted(self, work: Work, *, account: str, strategy: str) -> tuple[str, ...]:
        """Return the kill switches and HALTED states that cover an order, by scope and id. Raises as `rules` does."""
