"""Admit a connector: who is it, may it write now, and from which seq does it go on?"""

import asyncio
from dataclasses import dataclass
from typing import Final

import structlog

from bridge.leases import LeaseKeeper, OnLost
from core.errors.exceptions import Conflict, TickgateError, Unauthorized, Unavailable
from core.messages.wire import VERSION, Cursor, Hello, Nack, NackCode, Resume
from core.ports.ticks import Lease, Source, SourceRegistry, TickStore
from core.settings import BridgeSettings

log = structlog.get_logger(__name__)

RETRY_MS: Final = 1_000


class Refused(TickgateError):
    """The connector is told why and disconnected."""

    def __init__(self, nack: Nack) -> None:
        super().__init__(nack.message, code=nack.code.value)
        self.nack = nack


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What an admitted connector got."""

    source: Source
    lease: Lease
    epoch: int
    durable_seq: int
    resume: Resume


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Decides on HELLOs. The store is the only authority on what is durable; nothing is remembered between them."""

    registry: SourceRegistry
    store: TickStore
    leases: LeaseKeeper
    settings: BridgeSettings

    async def authenticate(self, hello: Hello) -> Source:
        """Raises: Refused."""
        if VERSION not in hello.versions:
            raise Refused(
                Nack(code=NackCode.VERSION_UNSUPPORTED, message=f"this bridge speaks version {VERSION}")
            )
        try:
            return await self.registry.authenticate(hello.source, hello.token)
        except Unauthorized as e:
            raise Refused(Nack(code=NackCode.UNAUTHORIZED, message=e.public)) from e
        except Unavailable as e:
            raise Refused(_unavailable(e)) from e

    async def admit(self, hello: Hello, source: Source, on_lost: OnLost) -> Admission:
        """Take the lease, drain what may still be in flight, and read from the store where to go on.

        Raises: Refused.
        """
        try:
            lease = await self.leases.take(source, on_lost)
        except Unauthorized as e:
            # Its token has ended since it was looked at.
            raise Refused(Nack(code=NackCode.UNAUTHORIZED, message=e.public)) from e
        except Conflict as e:
            nack = Nack(code=NackCode.LEASE_HELD, message=e.public, retry_ms=RETRY_MS)
            raise Refused(nack) from e
        except Unavailable as e:
            raise Refused(_unavailable(e)) from e
        try:
            return await self._resume(hello, source, lease)
        except BaseException as e:
            # A connector that hangs up cancels us here; its lease must not stay held for ever.
            await asyncio.shield(self.leases.release(lease))
            if isinstance(e, Unavailable):
                raise Refused(_unavailable(e)) from e
            raise

    async def _resume(self, hello: Hello, source: Source, lease: Lease) -> Admission:
        if hello.next_seq > 1 and await self.registry.has_forgotten(source.name, hello.install):
            # What its epoch's predecessors stored since the backup is lost, and its own cursor lies behind that.
            message = f"the stores were restored from before this install of {source.name}; begin a new one"
            raise Refused(Nack(code=NackCode.SPOOL_DIVERGED, message=message))
        epoch = await self.registry.epoch_of(source.name, hello.install)
        dropped = await self.registry.epochs(source.name)
        if epoch < max(dropped):
            # Its own cursor knows nothing of what the later install stored: going on would double all of that.
            message = f"a later install of {source.name} has taken over; begin a new one"
            raise Refused(Nack(code=NackCode.SPOOL_DIVERGED, message=message))
        await self.store.drain(source.name)
        tallies = await self.registry.recorded_tallies(source.name, epoch, None)
        known_seq = max((tally.last_seq for tally in tallies), default=0)
        stored_seq = await self.store.durable_seq(source.name, epoch, known_seq)
        dropped_seq = dropped[epoch].last_seq
        if stored_seq < known_seq and dropped_seq < known_seq:
            log.error("store.regressed", source=source.name, epoch=epoch, stored=stored_seq, known=known_seq)
        durable_seq = max(stored_seq, dropped_seq)
        self._refuse_divergence(hello, durable_seq)
        cursors = [] if durable_seq else await self._cursors(source.name)
        resume = Resume(
            version=VERSION,
            epoch=epoch,
            next_seq=durable_seq + 1,
            window_rows=self.settings.window_rows,
            window_frames=self.settings.window_frames,
            heartbeat_ms=self.settings.heartbeat_ms,
            cursors=cursors,
        )
        return Admission(source=source, lease=lease, epoch=epoch, durable_seq=durable_seq, resume=resume)

    def _refuse_divergence(self, hello: Hello, durable_seq: int) -> None:
        if hello.next_seq <= durable_seq:
            message = f"the spool would give seq {hello.next_seq} again, the store holds up to {durable_seq}"
        elif hello.first_seq > durable_seq + 1:
            message = f"the spool begins at seq {hello.first_seq}, the store ends at {durable_seq}"
        else:
            return
        raise Refused(Nack(code=NackCode.SPOOL_DIVERGED, message=message, expected=durable_seq + 1))

    async def _cursors(self, source: str) -> list[Cursor]:
        found = await self.store.cursors(source)
        return [
            Cursor(symbol=symbol, time_msc=cursor.time_msc, count=cursor.count)
            for symbol, cursor in sorted(found.items())
        ]


def _unavailable(error: Unavailable) -> Nack:
    return Nack(code=NackCode.STORE_UNAVAILABLE, message=error.public, retry_ms=RETRY_MS)
