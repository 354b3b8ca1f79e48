"""What somebody has set of risk: limits, trading states, kill switches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.model.risk import (
        Halted,
        KillSwitch,
        LimitScope,
        LimitSet,
        Restriction,
        RiskRules,
        StateSet,
        SwitchScope,
        TradingState,
    )
    from core.ports.access import Work


Place = tuple[str, str]
"""A scope and its target, by which lists go on."""


class RiskBook(Protocol):
    """What holds for an order, read so that nobody can engage a kill switch between that and the end of the work."""

    async def hold(self, work: Work) -> None:
        """Hold changes off until the work ends. Whoever locks an account and asks here too does this first.

        Raises: Unavailable.
        """

    async def rules(self, work: Work, *, account: str, strategy: str, symbol: str) -> RiskRules:
        """Return what holds for an order. Raises: Unavailable, Corrupt: what was set cannot be read; both deny."""

    async def halted(self, work: Work, *, account: str, strategy: str) -> Halted:
        """Return what keeps an order from being sent. Raises as `rules` does."""


class RiskDesk(RiskBook, Protocol):
    """Where limits, states and kill switches are set. A change waits for orders being judged, and they for it."""

    async def engage(
        self, work: Work, scope: SwitchScope, target: str, *, reason: str, author: str
    ) -> KillSwitch:
        """Engage a kill switch. Raises: NotFound (code ACCOUNT_NOT_FOUND): it would halt nothing; Unavailable."""

    async def release(self, work: Work, switch_id: str, *, author: str) -> KillSwitch | None:
        """Release a kill switch and return it; None where it was released before, and stays as it is.

        Raises: NotFound (code KILL_SWITCH_NOT_FOUND), Forbidden (code OPERATORS_ONLY): the operator engaged it, and
        the author is somebody else; Unavailable.
        """

    async def switches(self, tenant: str, *, before: str | None, limit: int) -> Sequence[KillSwitch]:
        """Return a tenant's switches and those of everybody, the latest first. Raises: Unavailable."""

    async def switch(self, tenant: str, switch_id: str) -> KillSwitch:
        """Return one. Raises: NotFound (code KILL_SWITCH_NOT_FOUND), Unavailable."""

    async def set_limits(
        self,
        work: Work,
        scope: LimitScope,
        target: str,
        limits: dict[str, object],
        *,
        expected: int | None,
        author: str,
    ) -> LimitSet:
        """Replace a scope's limits. expected: the version they must still have, 0 for none yet, None for any.

        Raises: Conflict (code VERSION_MISMATCH), Unavailable.
        """

    async def limits(self, tenant: str, *, after: Place | None, limit: int) -> Sequence[LimitSet]:
        """Return the limits in force behind a place, by scope and target. Raises: Unavailable."""

    async def versions(
        self, tenant: str, scope: LimitScope, target: str, *, before: int | None, limit: int
    ) -> Sequence[LimitSet]:
        """Return a scope's limits older than a version, the newest first. Raises: Unavailable."""

    async def set_state(
        self, work: Work, scope: SwitchScope, target: str, state: TradingState, *, reason: str, author: str
    ) -> StateSet:
        """Set a trading state. Raises: Unavailable."""

    async def states(self, tenant: str, *, after: Place | None, limit: int) -> Sequence[StateSet]:
        """Return the states that were set behind a place, by scope and target. Raises: Unavailable."""

    async def state(self, tenant: str, scope: SwitchScope, target: str) -> StateSet:
        """Return the state that was set. Raises: NotFound (code TRADING_STATE_NOT_FOUND), Unavailable."""

    async def engaged(self) -> Sequence[KillSwitch]:
        """Return the switches that hold, of all tenants. Raises: Unavailable."""

    async def restrictions(self) -> Sequence[Restriction]:
        """Return what has to be enforced on orders that are there, of all tenants: switches that hold, HALTED and
        REDUCING states. A state that cannot be read counts as HALTED. Raises: Unavailable.
        """
