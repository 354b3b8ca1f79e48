"""What an answer about ticks follows from, and what was known of the store before it was computed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

MS_PER_DAY: Final = 86_400_000
TIME_MS_MIN: Final = 0
TIME_MS_MAX: Final = 4_102_444_799_999
"""The end of 2099. Rows before or beyond are never the market's; they share one month, number 0."""

Position = tuple[int, int]
"""(epoch, seq) of a row; of one source, rows become durable in this order."""
Mark = tuple[int, int]
"""(highest block, rows) of a month. Every insert makes a higher block, a merge none; a dropped month has no mark."""
Months = Mapping[int, Mark]
"""By YYYYMM of the trade server's clock."""


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """The ticks an answer follows from. symbol: None for every one; times: inclusive, of the trade server's clock."""

    symbol: str | None = None
    start_ms: int = TIME_MS_MIN
    stop_ms: int = TIME_MS_MAX


class Stamp(msgspec.Struct, frozen=True, kw_only=True):
    """What was known before an answer was loaded. months: of its reach; positions: by source, of those known."""

    months: dict[int, Mark]
    positions: dict[str, Position]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """There are rows behind a position. position: the last of them; day: since 1970-01-01 on the trade server's clock.

    symbol: None for rows that no answer shows.
    """

    source: str
    position: Position
    symbol: str | None
    day: int


def reach(symbol: str | None, start_ms: int | None, stop_ms: int | None) -> Reach:
    """Return a reach with its bounds cut to the times a tick can have; None is the furthest."""
    start = TIME_MS_MIN if start_ms is None else min(max(start_ms, TIME_MS_MIN), TIME_MS_MAX)
    stop = TIME_MS_MAX if stop_ms is None else min(max(stop_ms, TIME_MS_MIN), TIME_MS_MAX)
    return Reach(symbol=symbol, start_ms=start, stop_ms=stop)
