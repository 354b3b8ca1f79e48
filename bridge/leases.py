"""Keep the leases this bridge holds, and know the moment from which they may no longer be trusted."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

import structlog

from core.errors.exceptions import TickgateError
from core.ports.clocks import Clock
from core.ports.ticks import Lease, Source, SourceRegistry

log = structlog.get_logger(__name__)

RENEWALS_PER_TTL: Final = 3
UNSAFE_FRACTION: Final = 1 / 3
"""In the last third of a lease nothing is sent any more, so a send that stalls still ends before the lease does."""


class Loss(Enum):
    """Why a lease was not renewed."""

    TAKEN_OVER = auto()
    TOKEN_ENDED = auto()


OnLost = Callable[[Loss], None]


@dataclass(slots=True)
class _Held:
    lease: Lease
    trusted_until_s: float
    on_lost: OnLost
    token_ended: bool = False


class LeaseKeeper:
    """Takes, renews and gives up leases. Time is counted on our own monotonic clock from before each question."""

    def __init__(self, registry: SourceRegistry, clock: Clock, holder: str, ttl_s: float) -> None:
        self._registry = registry
        self._clock = clock
        self._holder = holder
        self._ttl_s = ttl_s
        self._held: dict[str, _Held] = {}

    async def take(self, source: Source, on_lost: OnLost) -> Lease:
        """Take the lease of `source`; `on_lost` is called once if it is ours no more and we did not release it.

        Raises: Conflict (code LEASE_HELD), Unauthorized, Unavailable.
        """
        asked_at_s = self._clock.monotonic_s()
        lease = await self._registry.take_lease(source, self._holder, self._ttl_s)
        self._held[source.name] = _Held(lease, asked_at_s + self._ttl_s, on_lost)
        return lease

    def is_safe(self, lease: Lease) -> bool:
        """Whether an insert may be sent under `lease` right now."""
        held = self._held.get(lease.source)
        if held is None or held.lease != lease or held.token_ended:
            return False
        return self._clock.monotonic_s() < held.trusted_until_s - self._ttl_s * UNSAFE_FRACTION

    async def release(self, lease: Lease) -> None:
        """Give `lease` up so that another bridge need not wait for it to run out."""
        held = self._held.get(lease.source)
        if held is None or held.lease != lease:
            return
        del self._held[lease.source]
        try:
            await self._registry.release_lease(lease)
        except TickgateError as e:
            log.warning("lease.release_failed", source=lease.source, error=str(e))

    async def run(self) -> None:
        """Renew what is held until cancelled."""
        while True:
            await asyncio.sleep(self._ttl_s / RENEWALS_PER_TTL)
            try:
                await self._renew()
            except Exception:
                # Failing closed is `is_safe`'s work; ending every source over one defect would be worse.
                log.exception("lease.renewal_defect")

    async def _renew(self) -> None:
        asked = {source: held.lease for source, held in self._held.items() if not held.token_ended}
        if not asked:
            return
        asked_at_s = self._clock.monotonic_s()
        try:
            renewal = await self._registry.renew_leases(list(asked.values()), self._ttl_s)
        except TickgateError as e:
            # Not lost yet: `is_safe` says no in time, and the next round may succeed.
            log.warning("lease.renewal_failed", sources=len(asked), error=str(e))
            return
        for source, lease in asked.items():
            held = self._held.get(source)
            if held is None or held.lease != lease:
                continue
            if source in renewal.renewed:
                held.trusted_until_s = asked_at_s + self._ttl_s
                continue
            if source in renewal.ended:
                # Still ours to release once the session has ended, so that its successor need not wait.
                held.token_ended = True
                log.info("lease.ended", source=source, generation=lease.generation)
                held.on_lost(Loss.TOKEN_ENDED)
            else:
                del self._held[source]
                log.error("lease.lost", source=source, generation=lease.generation)
                held.on_lost(Loss.TAKEN_OVER)
