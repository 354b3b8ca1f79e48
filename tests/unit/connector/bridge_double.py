"""A bridge for tests: speaks the real protocol, keeps the truth of what it took, and misbehaves on request."""

import asyncio
import ssl
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import numpy as np
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from core.errors.exceptions import Corrupt
from core.market.checksum import checksum
from core.messages import wire
from core.messages.wire import Cursor, FrameType, Hello, Nack, NackCode, Notice, Resume, TallyFrame, TallyItem
from core.model.ticks import TICK_DTYPE


@dataclass
class Store:
    """What is durable of one install."""

    epoch: int
    rows: list = field(default_factory=list)
    symbols: list = field(default_factory=list)
    backfill: list = field(default_factory=list)
    offsets: list = field(default_factory=list)
    durable_seq: int = 0
    tallies: dict = field(default_factory=dict)

    def take(self, batch: wire.Batch) -> None:
        skip = self.durable_seq + 1 - batch.first_seq
        assert 0 <= skip < len(batch.rows)
        self.rows.append(batch.rows[skip:].copy())
        names = np.repeat([run.symbol for run in batch.runs], [run.count for run in batch.runs])
        self.symbols.append(names[skip:])
        self.backfill.append(np.full(len(batch.rows) - skip, batch.backfill))
        self.offsets.append(np.full(len(batch.rows) - skip, batch.utc_offset_s))
        self.durable_seq = batch.last_seq

    def all_rows(self):
        return np.concatenate(self.rows) if self.rows else np.empty(0, TICK_DTYPE)

    def rows_of(self, symbol: str):
        return self.all_rows()[np.concatenate(self.symbols) == symbol] if self.rows else self.all_rows()

    def check_tallies(self) -> int:
        """Every tally is true of what is stored; return the sum of their rows."""
        rows, names = self.all_rows(), np.concatenate(self.symbols)
        seqs = np.arange(1, len(rows) + 1)
        for item in self.tallies.values():
            mine = (
                (names == item.symbol)
                & (rows["time_msc"] // 86_400_000 == item.day)
                & (seqs <= item.last_seq)
            )
            assert np.count_nonzero(mine) == item.rows, item
            total = sum(checksum(rows[at : at + 1], at + 1) for at in np.flatnonzero(mine)) % 2**64
            assert f"{total:016x}" == item.checksum
            assert seqs[mine][0] == item.first_seq
        return sum(item.rows for item in self.tallies.values())


@dataclass
class BridgeDouble:
    """Faults are lists of things still to do, taken one by one."""

    window_rows: int = 800_000
    window_frames: int = 8_192
    heartbeat_ms: int = 1_000
    ack_delay_s: float = 0.0
    cut_after_frames: list = field(default_factory=list)
    lose_frames: list = field(default_factory=list)
    corrupt_frames: list = field(default_factory=list)
    refusals: list = field(default_factory=list)
    silent: bool = False
    stores: dict = field(default_factory=dict)
    hellos: list = field(default_factory=list)
    notices: list = field(default_factory=list)
    frames: list = field(default_factory=list)
    cursors: list = field(default_factory=list)
    unacknowledged_max: int = 0
    port: int = 0
    active: object = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    connections: set = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def store(self) -> Store:
        return list(self.stores.values())[-1]

    async def until(self, condition, timeout_s: float = 20.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def cut(self) -> None:
        for connection in list(self.connections):
            connection.transport.abort()

    async def handle(self, connection: ServerConnection) -> None:
        self.connections.add(connection)
        try:
            await self._serve(connection)
        except ConnectionClosed:
            pass
        finally:
            self.connections.discard(connection)

    async def _serve(self, connection: ServerConnection) -> None:
        hello = wire.decode_json(await connection.recv(), Hello)
        self.hellos.append(hello)
        self.changed.set()
        if self.refusals:
            await self._refuse(connection, self.refusals.pop(0))
            return
        known = hello.install in self.stores
        store = self.stores.setdefault(hello.install, Store(epoch=len(self.stores) + 1))
        if hello.next_seq <= store.durable_seq or hello.first_seq > store.durable_seq + 1:
            await self._refuse(connection, Nack(code=NackCode.SPOOL_DIVERGED, message="diverged"))
            return
        # From here on nothing of the session before is taken any more.
        session = _Session(self, connection, store)
        resume = Resume(
            version=1,
            epoch=store.epoch,
            next_seq=session.expected,
            window_rows=self.window_rows,
            window_frames=self.window_frames,
            heartbeat_ms=self.heartbeat_ms,
            cursors=[] if store.durable_seq else self.cursors or (self.market_cursors() if not known else []),
        )
        await connection.send(wire.encode_json(FrameType.RESUME, resume))
        await session.run()

    def market_cursors(self) -> list:
        """Where all epochs together stand, per symbol."""
        found: dict[str, Cursor] = {}
        for store in self.stores.values():
            for symbol in np.unique(np.concatenate(store.symbols)) if store.symbols else []:
                times = store.rows_of(symbol)["time_msc"]
                newest = int(times.max())
                count = int((times == newest).sum())
                if symbol not in found or found[symbol].time_msc < newest:
                    found[str(symbol)] = Cursor(symbol=str(symbol), time_msc=newest, count=count)
        return list(found.values())

    async def _refuse(self, connection: ServerConnection, nack: Nack) -> None:
        await connection.send(wire.encode_json(FrameType.NACK, nack))
        await connection.close(wire.CLOSE_CODES[nack.code], nack.code.value)


class _Session:
    def __init__(self, bridge: BridgeDouble, connection: ServerConnection, store: Store) -> None:
        self.bridge, self.connection, self.store = bridge, connection, store
        self.pending: list = []
        self.expected = store.durable_seq + 1
        bridge.active = self

    async def run(self) -> None:
        while True:
            frame = await self.connection.recv()
            if self.bridge.silent:
                continue
            await self._on_frame(frame)
            self.bridge.changed.set()

    async def _on_frame(self, frame: bytes) -> None:
        kind = wire.frame_type(frame)
        if kind is FrameType.PING:
            await self.connection.send(wire.encode_json(FrameType.PONG))
        elif kind is FrameType.TALLY:
            for item in wire.decode_json(frame, TallyFrame).tallies:
                self._on_tally(item)
        elif kind is FrameType.NOTICE:
            self.bridge.notices.append(wire.decode_json(frame, Notice))
        else:
            assert kind is FrameType.BATCH
            await self._on_batch(frame)

    def _on_tally(self, item: TallyItem) -> None:
        assert item.last_seq <= self.store.durable_seq, "a tally speaks of durable ticks only"
        self.store.tallies[item.symbol, item.day] = item

    async def _on_batch(self, frame: bytes) -> None:
        bridge = self.bridge
        number = len(bridge.frames)
        if bridge.corrupt_frames and number == bridge.corrupt_frames[0]:
            bridge.corrupt_frames.pop(0)
            frame = frame[:-1] + bytes([frame[-1] ^ 1])
        bridge.frames.append((zlib.crc32(frame), len(frame)))
        if bridge.lose_frames and number == bridge.lose_frames[0]:
            bridge.lose_frames.pop(0)
            return
        try:
            batch = wire.decode_batch(frame)
        except Corrupt:
            await self._nack(NackCode.BAD_CRC)
            return
        if batch.first_seq > self.expected:
            await self._nack(NackCode.GAP)
            return
        if batch.last_seq < self.expected:
            await self.connection.send(wire.encode_ack(self.store.durable_seq))
            return
        self.expected = batch.last_seq + 1
        unacknowledged = batch.last_seq - self.store.durable_seq
        bridge.unacknowledged_max = max(bridge.unacknowledged_max, unacknowledged)
        assert unacknowledged <= bridge.window_rows
        if bridge.cut_after_frames and len(bridge.frames) > bridge.cut_after_frames[0]:
            bridge.cut_after_frames.pop(0)
            self.connection.transport.abort()
            return
        if bridge.ack_delay_s:
            self.pending.append(batch)
            assert len(self.pending) <= bridge.window_frames
            if len(self.pending) == 1:
                self.later = asyncio.create_task(self._ack_later())
        else:
            self.store.take(batch)
            await self.connection.send(wire.encode_ack(self.store.durable_seq))

    async def _ack_later(self) -> None:
        await asyncio.sleep(self.bridge.ack_delay_s)
        if self.bridge.active is not self:
            # A successor has read where the store stands: what was in flight is settled, here by never being.
            return
        pending, self.pending = self.pending, []
        for batch in pending:
            self.store.take(batch)
        self.bridge.changed.set()
        with suppress(ConnectionClosed):
            await self.connection.send(wire.encode_ack(self.store.durable_seq))

    async def _nack(self, code: NackCode) -> None:
        nack = Nack(code=code, message=code.value, expected=self.expected)
        await self.connection.send(wire.encode_json(FrameType.NACK, nack))


@asynccontextmanager
async def running(
    double: BridgeDouble, port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[BridgeDouble]:
    async with serve(
        double.handle, "127.0.0.1", port, max_size=16 * 1024**2, compression=None, ssl=tls
    ) as server:
        double.port = server.sockets[0].getsockname()[1]
        yield double
