"""Which connector writes which source: one at a time, and a new one only after the old one's last insert is settled."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

from bridge.admission import Admission, Door, Refused
from bridge.fanout import Fanout
from bridge.leases import LeaseKeeper, Loss
from bridge.orders import OrderRelay
from bridge.peers import Peers
from bridge.subscribers import Subscribers
from bridge.writer import SourceWriter
from core.messages.wire import Hello, Nack, NackCode
from core.model.ticks import Quarantine, TickBlock
from core.ports.clocks import Clock
from core.ports.ticks import SourceRegistry, TickStore
from core.settings import BridgeSettings
from core.telemetry import metrics

HANDOVER_TIMEOUT_S: Final = 30.0


class Connection(Protocol):
    """What a session needs of its connection."""

    heard_at_s: float
    closed: asyncio.Event

    def acknowledge(self, block: TickBlock) -> None: ...
    def replace(self, message: str) -> None: ...
    def lose_lease(self, why: Loss) -> None: ...
    def shut_down(self) -> None: ...


@dataclass(slots=True)
class _Active:
    install: str
    connection: Connection
    ended: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True, kw_only=True)
class Sessions:
    """Every session of this bridge."""

    door: Door
    registry: SourceRegistry
    store: TickStore
    leases: LeaseKeeper
    fanout: Fanout
    clock: Clock
    settings: BridgeSettings
    peers: Peers
    subscribers: Subscribers
    orders: OrderRelay
    _active: dict[str, _Active] = field(default_factory=dict)
    _handover: dict[str, asyncio.Lock] = field(default_factory=dict)

    @asynccontextmanager
    async def session(
        self, hello: Hello, connection: Connection
    ) -> AsyncIterator[tuple[Admission, SourceWriter]]:
        """Admit a connector and hold its source until the block ends.

        Raises: Refused.
        """
        source = await self.door.authenticate(hello)
        active = _Active(hello.install, connection)
        async with self._handover.setdefault(source.name, asyncio.Lock()):
            await self._end_predecessor(source.name, hello)
            self._active[source.name] = active
        try:
            admission = await self.door.admit(hello, source, connection.lose_lease)
            try:
                yield admission, self._writer(admission, connection)
            finally:
                # Shielded: a cancelled session must still let go of its lease, or its successor waits for it.
                with suppress(asyncio.CancelledError):
                    await asyncio.shield(self.leases.release(admission.lease))
        finally:
            active.ended.set()
            if self._active.get(source.name) is active:
                del self._active[source.name]

    def shut_down(self) -> None:
        """Tell every connector to come back later."""
        for active in list(self._active.values()):
            active.connection.shut_down()

    async def wait_ended(self) -> None:
        """Wait until every session has let go."""
        await asyncio.gather(*(active.ended.wait() for active in list(self._active.values())))

    async def _end_predecessor(self, source: str, hello: Hello) -> None:
        old = self._active.get(source)
        if old is None:
            return
        silent_s = self.clock.monotonic_s() - old.connection.heard_at_s
        alive = not old.connection.closed.is_set() and silent_s < self.settings.heartbeat_ms * 2 / 1_000
        if old.install != hello.install and alive:
            raise Refused(
                Nack(
                    code=NackCode.SOURCE_BUSY,
                    message=f"another connector is writing {source}",
                    retry_ms=self.settings.heartbeat_ms,
                )
            )
        # The same install again means its old connection is half open: the new one is the real one.
        old.connection.replace("the same connector has connected again")
        try:
            async with asyncio.timeout(HANDOVER_TIMEOUT_S):
                await old.ended.wait()
        except TimeoutError as e:
            message = f"the last connection of {source} has not ended yet"
            raise Refused(Nack(code=NackCode.SOURCE_BUSY, message=message, retry_ms=1_000)) from e

    def _writer(self, admission: Admission, connection: Connection) -> SourceWriter:
        def on_durable(block: TickBlock) -> None:
            connection.acknowledge(block)
            self._count(admission.source.name, block)
            self.fanout.publish(admission.source.tenant, block)

        return SourceWriter(
            lease=admission.lease,
            epoch=admission.epoch,
            durable_seq=admission.durable_seq,
            store=self.store,
            clock=self.clock,
            limits=self.settings,
            is_safe=self.leases.is_safe,
            on_durable=on_durable,
        )

    def _count(self, source: str, block: TickBlock) -> None:
        metrics.BRIDGE_TICKS.labels(source).inc(len(block))
        if block.quarantine.any():
            for reason in Quarantine:
                count = int((block.quarantine == reason.value).sum())
                if count and reason is not Quarantine.OK:
                    metrics.BRIDGE_QUARANTINED.labels(reason.name).inc(count)
        captured_at_ms = int(block.captured_at_ms[-1])
        if captured_at_ms and not block.backfill[-1]:
            metrics.BRIDGE_CAPTURE_LAG_SECONDS.observe(
                max(0.0, (self.clock.now_ms() - captured_at_ms) / 1_000)
            )
