"""Write one source's ticks: gather what arrived, insert it as one block, acknowledge what is durable.

One insert is in flight at a time and in seq order, so whatever a crash cuts off is a tail, never a hole.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import structlog

from core.errors.exceptions import TickgateError, Unavailable, UnknownOutcome
from core.market.validation import quarantine_reasons
from core.messages.wire import Batch
from core.model.ticks import TICK_DTYPE, SymbolRun, TickBlock, Ticks, slice_block, slice_runs
from core.ports.clocks import Clock
from core.ports.ticks import Lease, TickInsert, TickStore
from core.settings import BridgeSettings
from core.telemetry import metrics

log = structlog.get_logger(__name__)

RECOVERY_PAUSE_S: Final = 0.2
RECOVERY_PAUSE_S_MAX: Final = 5.0


class LeaseLost(TickgateError):
    """The right to write this source is no longer ours."""

    default_code = "LEASE_LOST"


class StoreRegressed(TickgateError):
    """The store holds less than it acknowledged; the connector must start over from what it holds."""

    default_code = "STORE_REGRESSED"


class SourceWriter:
    """The one writer of (source, epoch) while its lease lasts."""

    def __init__(
        self,
        *,
        lease: Lease,
        epoch: int,
        durable_seq: int,
        store: TickStore,
        clock: Clock,
        limits: BridgeSettings,
        is_safe: Callable[[Lease], bool],
        on_durable: Callable[[TickBlock], None],
    ) -> None:
        self.source = lease.source
        self.epoch = epoch
        self.durable_seq = durable_seq
        self._next_seq = durable_seq + 1
        self._lease = lease
        self._store = store
        self._clock = clock
        self._limits = limits
        self._is_safe = is_safe
        self._on_durable = on_durable
        self._pending: deque[Batch] = deque()
        self._unacknowledged_rows = 0
        self._frame_ends: deque[int] = deque()  # the last seq of every unacknowledged frame
        self._pending_rows = 0
        self._enough_rows = limits.insert_rows_max
        self._arrived = asyncio.Event()
        self._enough = asyncio.Event()

    @property
    def expected_seq(self) -> int:
        """The next seq to be taken."""
        return self._next_seq

    def fits(self, batch: Batch) -> bool:
        """Whether the window has room for `batch`."""
        return (
            self._unacknowledged_rows + len(batch.rows) <= self._limits.window_rows
            and len(self._frame_ends) < self._limits.window_frames
        )

    def offer(self, batch: Batch) -> None:
        """Take a batch that begins at or below `expected_seq` and ends at or above it; the overlap is dropped."""
        overlap = self._next_seq - batch.first_seq
        if overlap:
            batch = Batch(
                first_seq=self._next_seq,
                rows=batch.rows[overlap:],
                runs=slice_runs(batch.runs, overlap, len(batch.rows)),
                utc_offset_s=batch.utc_offset_s,
                captured_at_ms=batch.captured_at_ms,
                backfill=batch.backfill,
            )
        self._next_seq = batch.last_seq + 1
        self._pending.append(batch)
        self._unacknowledged_rows += len(batch.rows)
        self._frame_ends.append(batch.last_seq)
        self._pending_rows += len(batch.rows)
        self._arrived.set()
        if self._pending_rows >= self._enough_rows:
            self._enough.set()

    async def run(self) -> None:
        """Insert until cancelled.

        Raises:
            LeaseLost: somebody else may write now. StoreRegressed: see there.
        """
        pause_s = self._limits.insert_interval_ms_min / 1_000
        while True:
            await self._arrived.wait()
            started_s = self._clock.monotonic_s()
            inserts = self._prepare()
            while inserts:
                storing = asyncio.create_task(self._store_in_order(inserts))
                try:
                    # What arrives while an insert runs is encoded before it ends, once there is a good piece of it.
                    following = await self._prepare_beside(storing)
                    await storing
                finally:
                    storing.cancel()
                inserts = following
            # The least time between two inserts lets small frames gather.
            await asyncio.sleep(max(0.0, pause_s - (self._clock.monotonic_s() - started_s)))

    async def _prepare_beside(self, storing: asyncio.Task[None]) -> Sequence[TickInsert]:
        enough = asyncio.create_task(self._enough.wait())
        try:
            await asyncio.wait({storing, enough}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            enough.cancel()
        return () if storing.done() else self._prepare()

    async def _store_in_order(self, inserts: Sequence[TickInsert]) -> None:
        for insert in inserts:
            await self._make_durable(insert)

    def _prepare(self) -> Sequence[TickInsert]:
        return self._store.prepare(self._block(self._gather()))

    def _gather(self) -> list[Batch]:
        batches = [self._pending.popleft()]
        rows = len(batches[0].rows)
        while self._pending and rows + len(self._pending[0].rows) <= self._limits.insert_rows_max:
            rows += len(self._pending[0].rows)
            batches.append(self._pending.popleft())
        if not self._pending:
            self._arrived.clear()
        self._pending_rows -= rows
        if self._pending_rows < self._enough_rows:
            self._enough.clear()
        return batches

    def _block(self, batches: list[Batch]) -> TickBlock:
        counts = [len(batch.rows) for batch in batches]
        rows = _joined_rows(batches)
        return TickBlock(
            source=self.source,
            epoch=self.epoch,
            first_seq=batches[0].first_seq,
            rows=rows,
            runs=_joined_runs(batches),
            quarantine=quarantine_reasons(rows, self._clock.now_ms()),
            backfill=np.repeat(np.array([batch.backfill for batch in batches], dtype=np.uint8), counts),
            utc_offset_s=np.repeat(
                np.array([batch.utc_offset_s for batch in batches], dtype=np.int32), counts
            ),
            captured_at_ms=np.repeat(np.array([b.captured_at_ms for b in batches], dtype=np.int64), counts),
        )

    async def _make_durable(self, insert: TickInsert) -> None:
        pause_s = 0.0
        while True:
            block = insert.block
            if not self._is_safe(self._lease):
                raise LeaseLost(f"the lease of {self.source} ran out")
            try:
                with metrics.BRIDGE_INSERT_SECONDS.time():
                    await self._store.append(insert, self._lease.generation)
            except UnknownOutcome as e:
                metrics.BRIDGE_UNKNOWN_OUTCOMES.inc()
                log.warning("insert.unknown_outcome", source=self.source, seq=block.first_seq, error=str(e))
                durable_seq = await self._look()
                if durable_seq < block.first_seq - 1:
                    raise StoreRegressed(f"{self.source} fell back to seq {durable_seq}") from e
                stored_rows = durable_seq - block.first_seq + 1
                if stored_rows == 0:
                    # A store that refuses (full, too many parts) gets more and more time between two attempts.
                    await asyncio.sleep(pause_s)
                    pause_s = min(pause_s * 2 or RECOVERY_PAUSE_S, RECOVERY_PAUSE_S_MAX)
                    continue
                if stored_rows < len(block):
                    self._acknowledge(slice_block(block, 0, stored_rows))
                    (insert,) = self._store.prepare(slice_block(block, stored_rows, len(block)))
                    continue
            self._acknowledge(block)
            return

    async def _look(self) -> int:
        """Drain, then ask the store what is durable; for as long as it takes and the lease lasts."""
        pause_s = RECOVERY_PAUSE_S
        while True:
            if not self._is_safe(self._lease):
                raise LeaseLost(f"the lease of {self.source} ran out")
            try:
                await self._store.drain(self.source)
                return await self._store.durable_seq(self.source, self.epoch, self.durable_seq)
            except Unavailable as e:
                log.warning("insert.recovery_waits", source=self.source, error=str(e))
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, RECOVERY_PAUSE_S_MAX)

    def _acknowledge(self, block: TickBlock) -> None:
        if not len(block):
            return
        self.durable_seq = block.last_seq
        self._unacknowledged_rows -= len(block)
        while self._frame_ends and self._frame_ends[0] <= block.last_seq:
            self._frame_ends.popleft()
        self._on_durable(block)


def _joined_rows(batches: list[Batch]) -> Ticks:
    if len(batches) == 1:
        return batches[0].rows
    # As plain bytes: numpy copies packed records field by field, four times slower.
    joined = np.concatenate([batch.rows.view(np.uint8) for batch in batches])
    return joined.view(TICK_DTYPE)


def _joined_runs(batches: list[Batch]) -> tuple[SymbolRun, ...]:
    """Concatenate runs; neighbours of one symbol, as one-tick frames make them, become one run."""
    joined: list[SymbolRun] = []
    for batch in batches:
        for run in batch.runs:
            if joined and joined[-1].symbol == run.symbol:
                joined[-1] = SymbolRun(symbol=run.symbol, count=joined[-1].count + run.count)
            else:
                joined.append(run)
    return tuple(joined)
