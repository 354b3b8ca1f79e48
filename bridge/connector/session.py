"""One connection to the bridge, from RESUME to its end: send what is spooled, obey the window, fold what is acked."""

import asyncio
from collections import deque
from typing import Final

import structlog

from bridge.connector.bridge_socket import OnOrder, Wire
from bridge.connector.frames import Outgoing
from bridge.connector.spool_file import SpoolFull
from bridge.connector.spool_thread import SpoolThread
from bridge.connector.tallies import TallyDelta
from core.errors.exceptions import TickgateError, Unavailable
from core.messages import wire
from core.messages.wire import FrameType, Nack, Notice, Resume, TallyFrame, TallyItem

log = structlog.get_logger(__name__)

HEARTBEATS_SILENT_MAX: Final = 3
ACK_STALL_S_MAX: Final = 60.0
"""Twice what one insert may take: a bridge that answers but acknowledges nothing is dialled anew."""
FRAMES_PER_WINDOW: Final = 4
"""At least so many frames fit in the window, so that the bridge has work while one is on its way."""
READ_BYTES_MAX: Final = 8 * 1024**2
ACK_INTERVAL_S: Final = 0.1
"""Each deletion is an fsync: what was acknowledged meanwhile goes in one."""
TALLY_INTERVAL_S: Final = 2.0
TALLY_ITEMS_MAX: Final = 5_000
DISK_PAUSE_S: Final = 1.0


class Session:
    """Everything that happens on one connection after RESUME."""

    def __init__(self, spool: SpoolThread, notices: deque[Notice], on_order: OnOrder) -> None:
        self._spool = spool
        self._notices = notices
        self._in_flight: deque[Outgoing] = deque()
        self._in_flight_rows = 0
        self._next_seq = 1
        self._generation = 0
        self._room = asyncio.Event()
        self._acked = asyncio.Event()
        self._say = asyncio.Event()
        self._unsent: dict[tuple[str, int], TallyDelta] = {}
        self._tallied_at_s = 0.0
        self._progress_at_s = 0.0
        self.acked_seq = 0
        self.settled_seq = -1
        self.wire = Wire(self._on_ack, self._on_nack, on_order)

    async def run(self, resume: Resume) -> None:
        """Send until the connection ends; always raises why it did."""
        self._limits = resume
        self._rows_max = min(wire.BATCH_ROWS_MAX, max(1, resume.window_rows // FRAMES_PER_WINDOW))
        # The bridge counts a frame until all of it and its neighbours is durable: stay clear of its limit.
        self._frames_max = max(1, resume.window_frames * 3 // 4)
        self._next_seq = resume.next_seq
        self.acked_seq = resume.next_seq - 1
        self._unsent = {(t.symbol, t.day): t for t in await self._spool.tallies(wire.TALLIES_MAX)}
        self._send_tallies()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._send_batches())
                tasks.create_task(self._fold_acknowledged())
                tasks.create_task(self._beat())
                tasks.create_task(self._send_notices())
                tasks.create_task(self._watch_end())
        except* TickgateError as group:
            raise _first(group) from None

    async def settle(self) -> None:
        """Send every tally that is due now, and return when the bridge has read them."""
        await self._fold()
        self._send_tallies()
        number = self.wire.ping()
        while self.wire.pongs < number:
            self.wire.ponged.clear()
            await self.wire.ponged.wait()
        self.settled_seq = self.acked_seq

    def say(self) -> None:
        """There is a new notice."""
        self._say.set()

    def _on_ack(self, durable_seq: int) -> None:
        self._progress_at_s = asyncio.get_running_loop().time()
        self.acked_seq = max(self.acked_seq, durable_seq)
        while self._in_flight and self._in_flight[0].last_seq <= durable_seq:
            self._in_flight_rows -= self._in_flight.popleft().rows
        self._room.set()
        self._acked.set()

    def _on_nack(self, nack: Nack) -> None:
        expected = nack.expected if nack.expected is not None else self.acked_seq + 1
        log.warning("link.rewound", code=nack.code.value, expected=expected)
        self._generation += 1
        self._next_seq = expected
        while self._in_flight and self._in_flight[-1].last_seq >= expected:
            self._in_flight_rows -= self._in_flight.pop().rows
        self._room.set()

    async def _send_batches(self) -> None:
        while True:
            await self._spool.wait_for(self._next_seq)
            generation = self._generation
            for outgoing in await self._spool.outgoing(self._next_seq, self._rows_max, READ_BYTES_MAX):
                await self._wait_for_room(outgoing.rows)
                if generation != self._generation:
                    break
                if not self._in_flight:
                    self._progress_at_s = asyncio.get_running_loop().time()
                self._in_flight.append(outgoing)
                self._in_flight_rows += outgoing.rows
                self._next_seq = outgoing.last_seq + 1
                self.wire.send(outgoing.frame)

    async def _wait_for_room(self, rows: int) -> None:
        while (
            self._in_flight_rows + rows > self._limits.window_rows or len(self._in_flight) >= self._frames_max
        ):
            self._room.clear()
            await self._room.wait()
        await self.wire.writable.wait()

    async def _fold_acknowledged(self) -> None:
        while True:
            await self._acked.wait()
            self._acked.clear()
            await self._fold()
            await asyncio.sleep(ACK_INTERVAL_S)
            self._send_tallies_when_due()

    async def _fold(self) -> None:
        """Delete from the spool what is acknowledged; it now counts as sent."""
        try:
            changed = await self._spool.acknowledge(self.acked_seq)
        except SpoolFull as e:
            # Even a deletion needs a little room; the ticks stay and are asked for again.
            log.error("spool.cannot_delete", error=str(e))
            await asyncio.sleep(DISK_PAUSE_S)
            self._acked.set()
            return
        self._unsent.update({(tally.symbol, tally.day): tally for tally in changed})

    def _send_tallies_when_due(self) -> None:
        if not self._unsent:
            return
        now_s = asyncio.get_running_loop().time()
        if now_s - self._tallied_at_s >= TALLY_INTERVAL_S:
            self._send_tallies()
        else:
            # Look again, even if nothing more is acknowledged.
            asyncio.get_running_loop().call_at(self._tallied_at_s + TALLY_INTERVAL_S, self._acked.set)

    def _send_tallies(self) -> None:
        due = list(self._unsent.values())
        self._unsent.clear()
        self._tallied_at_s = asyncio.get_running_loop().time()
        for at in range(0, len(due), TALLY_ITEMS_MAX):
            items = [_item(tally) for tally in due[at : at + TALLY_ITEMS_MAX]]
            self.wire.send(wire.encode_json(FrameType.TALLY, TallyFrame(tallies=items)))

    async def _send_notices(self) -> None:
        while True:
            while self._notices:
                self.wire.send(wire.encode_json(FrameType.NOTICE, self._notices.popleft()))
            self._say.clear()
            await self._say.wait()

    async def _beat(self) -> None:
        interval_s = self._limits.heartbeat_ms / 1_000
        while True:
            self.wire.ping()
            await asyncio.sleep(interval_s)
            silent_s = asyncio.get_running_loop().time() - self.wire.heard_at_s
            if silent_s > interval_s * HEARTBEATS_SILENT_MAX:
                self.wire.disconnect(graceful=False)
                raise Unavailable(f"the bridge has been silent for {silent_s:.1f} s", code="BRIDGE_SILENT")
            self._refuse_stall()

    def _refuse_stall(self) -> None:
        stalled_s = asyncio.get_running_loop().time() - self._progress_at_s
        if self._in_flight and stalled_s > ACK_STALL_S_MAX:
            raise Unavailable(
                f"the bridge has acknowledged nothing for {stalled_s:.0f} s", code="BRIDGE_STALLED"
            )

    async def _watch_end(self) -> None:
        await asyncio.shield(self.wire.ended)


def _item(tally: TallyDelta) -> TallyItem:
    return TallyItem(
        symbol=tally.symbol,
        day=tally.day,
        rows=tally.rows,
        first_seq=tally.first_seq,
        last_seq=tally.last_seq,
        checksum=f"{tally.checksum:016x}",
    )


def _first(group: BaseExceptionGroup[TickgateError]) -> TickgateError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
