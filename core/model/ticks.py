"""Ticks in bulk: the 60-byte MetaTrader 5 row, and a block of rows on its way into the store."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

# Source: dtype of `MetaTrader5.copy_ticks_from`, packed, little-endian, 60 bytes a row.
TICK_DTYPE: Final[np.dtype[Any]] = np.dtype(
    [
        ("time", "<i8"),
        ("bid", "<f8"),
        ("ask", "<f8"),
        ("last", "<f8"),
        ("volume", "<u8"),
        ("time_msc", "<i8"),
        ("flags", "<u4"),
        ("volume_real", "<f8"),
    ]
)
TICK_BYTES: Final = 60
assert TICK_DTYPE.itemsize == TICK_BYTES

FLAG_BID: Final = 2
FLAG_ASK: Final = 4
FLAG_LAST: Final = 8
FLAG_VOLUME: Final = 16

UTC_OFFSET_UNKNOWN: Final = -(2**31)
"""Stands for "not measured" in an int32 column; a guess would be worse."""

Ticks = npt.NDArray[np.void]
"""shape (n,), dtype TICK_DTYPE, in the order the terminal holds them."""


class Quarantine(IntEnum):
    """Why a row is kept apart from the market's ticks; OK means it is not. Stored as Enum8: never renumber."""

    OK = 0
    NOT_FINITE = 1
    NEGATIVE = 2
    CROSSED = 3
    ABSURD_TIME = 4
    TIME_MISMATCH = 5
    NO_PRICE = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class SymbolRun:
    """`count` consecutive rows of one symbol."""

    symbol: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TickBlock:
    """Consecutive rows of one (source, epoch), ready to be stored.

    first_seq: seq of rows[0]; rows[i] has seq first_seq + i.
    rows: shape (n,), TICK_DTYPE.
    runs: row-order runs of symbols; their counts add up to n.
    quarantine: shape (n,), uint8, values of `Quarantine`.
    backfill: shape (n,), uint8, 1 where the row was read from history after an absence.
    utc_offset_s: shape (n,), int32, trade server clock minus UTC, or UTC_OFFSET_UNKNOWN.
    captured_at_ms: shape (n,), int64, the connector's UTC clock when it read the row.
    """

    source: str
    epoch: int
    first_seq: int
    rows: Ticks
    runs: tuple[SymbolRun, ...]
    quarantine: npt.NDArray[np.uint8]
    backfill: npt.NDArray[np.uint8]
    utc_offset_s: npt.NDArray[np.int32]
    captured_at_ms: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def last_seq(self) -> int:
        return self.first_seq + len(self.rows) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketCursor:
    """Where a reader of history stands: `count` ticks of the millisecond `time_msc` have been delivered."""

    time_msc: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What the connector says it sent of one symbol and day: the other side of a completeness certificate.

    day: days since 1970-01-01 of the trade server's clock (time_msc // 86_400_000).
    rows: how many ticks with seq <= last_seq; checksum: their sum, see `core.market.checksum`.
    """

    symbol: str
    day: int
    rows: int
    first_seq: int
    last_seq: int
    checksum: int


def slice_block(block: TickBlock, start: int, stop: int) -> TickBlock:
    """Return rows start..stop of `block` with their runs."""
    return TickBlock(
        source=block.source,
        epoch=block.epoch,
        first_seq=block.first_seq + start,
        rows=block.rows[start:stop],
        runs=slice_runs(block.runs, start, stop),
        quarantine=block.quarantine[start:stop],
        backfill=block.backfill[start:stop],
        utc_offset_s=block.utc_offset_s[start:stop],
        captured_at_ms=block.captured_at_ms[start:stop],
    )


def slice_runs(runs: Sequence[SymbolRun], start: int, stop: int) -> tuple[SymbolRun, ...]:
    """Return the runs that cover rows start..stop."""
    kept: list[SymbolRun] = []
    at = 0
    for run in runs:
        overlap = min(stop, at + run.count) - max(start, at)
        if overlap > 0:
            kept.append(SymbolRun(symbol=run.symbol, count=overlap))
        at += run.count
    return tuple(kept)
