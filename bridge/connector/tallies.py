"""What was sent, counted per symbol and day: the connector's side of a completeness certificate."""

import msgspec
import numpy as np

from core.market.checksum import row_hashes
from core.messages.wire import Batch

DAY_MS = 86_400_000
CHECKSUM_MASK = 2**64 - 1


class TallyDelta(msgspec.Struct, frozen=True, array_like=True):
    """One batch's share. checksum: below 2**64."""

    symbol: str
    day: int
    rows: int
    first_seq: int
    last_seq: int
    checksum: int

    def plus(self, later: "TallyDelta") -> "TallyDelta":
        """Return the tally after `later` has been added to it."""
        return TallyDelta(
            symbol=self.symbol,
            day=self.day,
            rows=self.rows + later.rows,
            first_seq=min(self.first_seq, later.first_seq),
            last_seq=max(self.last_seq, later.last_seq),
            checksum=(self.checksum + later.checksum) & CHECKSUM_MASK,
        )


def deltas_of(batch: Batch) -> list[TallyDelta]:
    """Tally a batch: one entry for each stretch of one symbol and day."""
    hashes = row_hashes(batch.rows, batch.first_seq)
    days = batch.rows["time_msc"] // DAY_MS
    run_ends = np.cumsum([run.count for run in batch.runs])
    breaks = np.flatnonzero(np.diff(days)) + 1
    starts = np.union1d(np.union1d(breaks, run_ends[:-1]), [0]).astype(np.int64)
    ends = np.append(starts[1:], len(batch.rows))
    sums = np.add.reduceat(hashes, starts)
    run_of = np.searchsorted(run_ends, starts, side="right")
    return [
        TallyDelta(
            symbol=batch.runs[run].symbol,
            day=int(days[start]),
            rows=end - start,
            first_seq=batch.first_seq + start,
            last_seq=batch.first_seq + end - 1,
            checksum=int(total),
        )
        for run, start, end, total in zip(
            run_of.tolist(), starts.tolist(), ends.tolist(), sums.tolist(), strict=True
        )
    ]


def fold(deltas: list[TallyDelta]) -> dict[tuple[str, int], TallyDelta]:
    """Add deltas up by symbol and day."""
    folded: dict[tuple[str, int], TallyDelta] = {}
    for delta in deltas:
        key = (delta.symbol, delta.day)
        folded[key] = folded[key].plus(delta) if key in folded else delta
    return folded
