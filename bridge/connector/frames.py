"""Make BATCH frames of what is spooled: many small batches joined into one, a too large one cut."""

from dataclasses import dataclass
from typing import Final

from bridge.connector.rows import join
from core.errors.exceptions import Corrupt, Invalid
from core.messages.wire import (
    BATCH_ROWS_MAX,
    FRAME_BYTES_MAX,
    RUNS_MAX,
    SYMBOL_BYTES_MAX,
    Batch,
    decode_batch,
    encode_batch,
)
from core.model.ticks import TICK_BYTES, SymbolRun, slice_runs

JOIN_SPAN_MS_MAX: Final = 1_000
"""Joined batches share one `captured_at_ms`, the latest: this is how far off it may be for the earliest."""
RUN_BYTES_MAX: Final = SYMBOL_BYTES_MAX + 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A frame ready to send."""

    first_seq: int
    last_seq: int
    frame: bytes

    @property
    def rows(self) -> int:
        return self.last_seq - self.first_seq + 1


def pack(frames: list[bytes], from_seq: int, rows_max: int) -> list[Outgoing]:
    """Return frames that begin at `from_seq` and carry the rows of `frames` in order.

    Raises: Corrupt, when a stored frame is not what was written.
    """
    rows_max = min(rows_max, BATCH_ROWS_MAX)
    groups: list[list[Batch]] = []
    for frame in frames:
        batch = _stored(frame)
        if groups and _joins(groups[-1], batch, rows_max):
            groups[-1].append(batch)
        elif batch.last_seq >= from_seq:
            groups.append([batch])
    return [out for group in groups for out in _cut(_joined(group), from_seq, rows_max)]


def _stored(frame: bytes) -> Batch:
    try:
        return decode_batch(frame)
    except (Corrupt, Invalid) as e:
        text = (
            "a batch in the spool is damaged: move the spool away; the connector then starts a new epoch and reads on"
            " from what the store holds"
        )
        raise Corrupt(text, code="SPOOL_CORRUPT") from e


def _joins(group: list[Batch], batch: Batch, rows_max: int) -> bool:
    first = group[0]
    rows = batch.last_seq - first.first_seq + 1
    runs = sum(len(member.runs) for member in group) + len(batch.runs)
    return (
        rows <= rows_max
        and batch.backfill == first.backfill
        and batch.utc_offset_s == first.utc_offset_s
        and 0 <= batch.captured_at_ms - first.captured_at_ms <= JOIN_SPAN_MS_MAX
        and runs <= RUNS_MAX
        and rows * TICK_BYTES + runs * RUN_BYTES_MAX < FRAME_BYTES_MAX
    )


def _joined(group: list[Batch]) -> Batch:
    if len(group) == 1:
        return group[0]
    return Batch(
        first_seq=group[0].first_seq,
        rows=join([batch.rows for batch in group]),
        runs=joined_runs([run for batch in group for run in batch.runs]),
        utc_offset_s=group[0].utc_offset_s,
        captured_at_ms=group[-1].captured_at_ms,
        backfill=group[0].backfill,
    )


def joined_runs(runs: list[SymbolRun]) -> tuple[SymbolRun, ...]:
    """Merge neighbours of one symbol."""
    merged: list[SymbolRun] = []
    for run in runs:
        if merged and merged[-1].symbol == run.symbol:
            merged[-1] = SymbolRun(symbol=run.symbol, count=merged[-1].count + run.count)
        else:
            merged.append(run)
    return tuple(merged)


def _cut(batch: Batch, from_seq: int, rows_max: int) -> list[Outgoing]:
    start = max(0, from_seq - batch.first_seq)
    return [
        _outgoing(_slice(batch, at, min(at + rows_max, len(batch.rows))))
        for at in range(start, len(batch.rows), rows_max)
    ]


def _slice(batch: Batch, start: int, stop: int) -> Batch:
    return Batch(
        first_seq=batch.first_seq + start,
        rows=batch.rows[start:stop],
        runs=slice_runs(batch.runs, start, stop),
        utc_offset_s=batch.utc_offset_s,
        captured_at_ms=batch.captured_at_ms,
        backfill=batch.backfill,
    )


def _outgoing(batch: Batch) -> Outgoing:
    return Outgoing(first_seq=batch.first_seq, last_seq=batch.last_seq, frame=encode_batch(batch))
