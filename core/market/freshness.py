"""Whether an answer that was computed earlier is still what the store of ticks would say now.

An answer is stamped before it is loaded: with the marks of the months it follows from, and with the newest row of each
source. It holds while the marks stand; where they have moved, it holds if none of the rows behind its stamp is of its
symbol and on its days.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from core.model.freshness import MS_PER_DAY, Change, Mark, Months, Position, Reach, Stamp

CHANGES_MAX: Final = 20_000
"""Pairs of symbol and day that are remembered of one source; at more it begins anew."""
DAYS_KNOWN: Final = 4_096


def marks_within(months: Months, within: Reach) -> dict[int, Mark]:
    """Return the marks of the months that `within` touches."""
    first, last = _month(within.start_ms // MS_PER_DAY), _month(within.stop_ms // MS_PER_DAY)
    return {month: mark for month, mark in months.items() if first <= month <= last}


@lru_cache(DAYS_KNOWN)
def _month(day: int) -> int:
    moment = datetime.fromtimestamp(day * MS_PER_DAY / 1_000, UTC)
    return moment.year * 100 + moment.month


def stands(stamp: Stamp, within: Reach, months: Months) -> bool:
    """Whether nothing at all has been written to, or dropped from, the months of an answer since its stamp."""
    return stamp.months == marks_within(months, within)


def shrunk(before: Months, now: Months) -> bool:
    """Whether rows have gone: something was dropped, or the store has been put back to an earlier state."""
    return any(
        month not in now or now[month][0] < blocks or now[month][1] < rows
        for month, (blocks, rows) in before.items()
    )


@dataclass(slots=True)
class Followed:
    """One source since this process first looked: every row up to `newest` is known here, by symbol and day.

    base: of what lies before it nothing is known; months: the marks that stood before `newest` was found.
    """

    base: Position
    newest: Position
    months: Months
    _changed: dict[str, dict[int, Position]] = field(default_factory=dict)
    _count: int = 0

    def add(self, changes: Iterable[Change]) -> None:
        """Take in what was found behind `newest`."""
        for change in changes:
            self.newest = max(self.newest, change.position)
            if change.symbol is None:
                continue
            days = self._changed.setdefault(change.symbol, {})
            self._count += change.day not in days
            days[change.day] = max(days.get(change.day, (0, 0)), change.position)
        if self._count > CHANGES_MAX:
            self.base, self._count = self.newest, 0
            self._changed.clear()

    def untouched(self, stamped: Position, within: Reach) -> bool:
        """Whether no row behind `stamped` lies within; False where that is not known."""
        if stamped < self.base:
            return False
        first, last = within.start_ms // MS_PER_DAY, within.stop_ms // MS_PER_DAY
        symbols = self._changed if within.symbol is None else (within.symbol,)
        return not any(
            position > stamped and first <= day <= last
            for symbol in symbols
            for day, position in self._changed.get(symbol, {}).items()
        )


def untouched(
    stamp: Stamp, within: Reach, sources: Sequence[str], followed: Mapping[str, Followed], months: Months
) -> bool:
    """Whether an answer holds although its months have moved. followed: looked at after the question came."""
    if shrunk(stamp.months, months):
        return False
    return all(
        source in followed
        and source in stamp.positions
        and followed[source].untouched(stamp.positions[source], within)
        for source in sources
    )
