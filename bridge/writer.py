"""Write one source's ticks: gather what arrived, insert it as one block, acknowledge what is durable.

One insert is in flight at a time and in seq order, so whatever a crash cuts off is a tail, never a hole.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

import numpy as np
import structlog

from core.errors.exceptions import TickgateError, Unavailable, UnknownOutcome
from core.market.validation import quarantine_reasons
from core.messages.wire import Batch
from core.model.ticks import SymbolRun, TickBlock, slice_block, slice_runs
from core.ports import Clock, Lease, TickStore
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
        self._unacknowledged_frames = 0
        self._arrived = asyncio.Event()

    @property
    def expected_seq(self) -> int:
        """The next seq to be taken."""
        return self._next_seq

    def fits(self, batch: Batch) -> bool:
        """Whether the window has room for `batch`."""
        return (
            self._unacknowledged_rows + len(batch.rows) <= self._limits.window_rows
            and self._unacknowledged_frames < self._limits.window_frames
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
        self._unacknowledged_frames += 1
        self._arrived.set()

    async def run(self) -> None:
        """Insert until cancelled.

        Raises:
            LeaseLost: somebody else may write now. StoreRegressed: see there.
        """
        pause_s = self._limits.insert_interval_ms_min / 1_000
        while True:
            await self._arrived.wait()
            started_s = self._clock.monotonic_s()
            batches = self._gather()
            for piece in self._store.split(self._block(batches)):
                await self._make_durable(piece)
            self._unacknowledged_frames -= len(batches)
            # The least time between two inserts lets small frames gather; a full block need not wait.
            if not self._pending or self._unacknowledged_rows < self._limits.insert_rows_max // 4:
                await asyncio.sleep(max(0.0, pause_s - (self._clock.monotonic_s() - started_s)))

    def _gather(self) -> list[Batch]:
        batches = [self._pending.popleft()]
        rows = len(batches[0].rows)
        while self._pending and rows + len(self._pending[0].rows) <= self._limits.insert_rows_max:
            rows += len(self._pending[0].rows)
            batches.append(self._pending.popleft())
        if not self._pending:
            self._arrived.clear()
        return batches

    def _block(self, batches: list[Batch]) -> TickBlock:
        counts = [len(batch.rows) for batch in batches]
        rows = batches[0].rows if len(batches) == 1 else np.concatenate([batch.rows for batch in batches])
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

    async def _make_durable(self, block: TickBlock) -> None:
        while True:
            if not self._is_safe(self._lease):
                raise LeaseLost(f"the lease of {self.source} ran out")
            try:
                with metrics.BRIDGE_INSERT_SECONDS.time():
                    await self._store.append(block, self._lease.generation)
            except UnknownOutcome as e:
                metrics.BRIDGE_UNKNOWN_OUTCOMES.inc()
                log.warning("insert.unknown_outcome", source=self.source, seq=block.first_seq, error=str(e))
                durable_seq = await self._look()
                if durable_seq < block.first_seq - 1:
                    raise StoreRegressed(f"{self.source} fell back to seq {durable_seq}") from e
                if durable_seq < block.last_seq:
                    self._acknowledge(slice_block(block, 0, durable_seq - block.first_seq + 1))
                    block = slice_block(block, durable_seq - block.first_seq + 1, len(block))
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
        self._on_durable(block)


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
