"""When a bridge stops trusting a lease: in its last third, or at once when its token has ended or it is another's."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from bridge.leases import LeaseKeeper, Loss
from core.errors.exceptions import Unavailable
from core.ports.ticks import Lease, Renewal, Source

TTL_S = 0.03
"""On the loop's clock, which only says how often it asks; what the keeper trusts is counted on the hand clock."""


@dataclass
class HandClock:
    at_s: float = 100.0

    def now_ms(self) -> int:
        return int(self.at_s * 1_000)

    def monotonic_s(self) -> float:
        return self.at_s


@dataclass
class ModelLeases:
    """The ledger's leases: what the next renewals find, and what was released."""

    finds: Renewal | None = None
    asked: list[Sequence[Lease]] = field(default_factory=list)
    released: list[Lease] = field(default_factory=list)

    async def take_lease(self, source: Source, holder: str, ttl_s: float) -> Lease:
        return Lease(source=source.name, holder=holder, generation=1, expires_in_s=ttl_s)

    async def renew_leases(self, leases: Sequence[Lease], _ttl_s: float) -> Renewal:
        self.asked.append(leases)
        if self.finds is None:
            raise Unavailable("away")
        return self.finds

    async def release_lease(self, lease: Lease) -> None:
        self.released.append(lease)

    async def asked_again(self, times: int = 2) -> None:
        """Wait for that many further renewals."""
        goal = len(self.asked) + times
        async with asyncio.timeout(10):
            while len(self.asked) < goal:
                await asyncio.sleep(TTL_S / 10)


@dataclass
class Held:
    """A lease and its keeper, which has another one that stays."""

    keeper: LeaseKeeper
    lease: Lease
    losses: list[Loss]


@asynccontextmanager
async def held(ledger: ModelLeases, clock: HandClock) -> AsyncIterator[Held]:
    registry: Any = ledger
    keeper, losses = LeaseKeeper(registry, clock, "us", TTL_S), []
    lease = await keeper.take(Source(name="feed", tenant="t"), losses.append)
    await keeper.take(Source(name="stays", tenant="t"), losses.append)
    running = asyncio.create_task(keeper.run())
    try:
        yield Held(keeper, lease, losses)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def test_a_lease_that_cannot_be_renewed_is_not_used_in_its_last_third() -> None:
    ledger, clock = ModelLeases(finds=None), HandClock()
    async with held(ledger, clock) as ours:
        await ledger.asked_again()
        clock.at_s += TTL_S * 0.66
        assert ours.keeper.is_safe(ours.lease)
        clock.at_s += TTL_S * 0.01
        assert not ours.keeper.is_safe(ours.lease)
        assert ours.losses == []


async def test_a_lease_whose_token_has_ended_is_told_once_and_still_released() -> None:
    ledger = ModelLeases(finds=Renewal(renewed=frozenset({"stays"}), ended=frozenset({"feed"})))
    async with held(ledger, HandClock()) as ours:
        await ledger.asked_again()
        assert not ours.keeper.is_safe(ours.lease)
        await ours.keeper.release(ours.lease)
        assert (ours.losses, ledger.released) == ([Loss.TOKEN_ENDED], [ours.lease])


async def test_a_lease_that_somebody_took_over_is_not_released() -> None:
    ledger = ModelLeases(finds=Renewal(renewed=frozenset({"stays"})))
    async with held(ledger, HandClock()) as ours:
        await ledger.asked_again()
        await ours.keeper.release(ours.lease)
        assert (ours.losses, ledger.released) == ([Loss.TAKEN_OVER], [])
