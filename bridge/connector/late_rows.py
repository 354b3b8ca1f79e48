"""Ticks the terminal adds to the past: remember what was delivered of the last minutes, tell what has been added since.

A terminal that was offline for a moment, or a server that books late, inserts rows behind a reader that looks only
forward. Comparing is by how many ticks each millisecond holds; content only tells which of them is the new one.
"""

from collections import Counter
from typing import Final

import numpy as np

from bridge.connector.rows import join
from core.model.ticks import TICK_BYTES, Ticks

WINDOW_MS: Final = 300_000
REMEMBERED_ROWS_MAX: Final = 200_000
"""A busier window is remembered for a shorter time."""


class RecentRows:
    """Delivered rows of the last WINDOW_MS of market time, complete from `complete_from_ms` on."""

    def __init__(self, cursor_ms: int, *, nothing_delivered: bool) -> None:
        # Of the second the reader stands in, part may have been delivered before we began to remember.
        self.complete_from_ms = cursor_ms if nothing_delivered else (cursor_ms // 1_000 + 1) * 1_000
        self._parts: list[Ticks] = []
        self._rows = 0
        self._newest_ms = cursor_ms

    def add(self, rows: Ticks) -> None:
        """Remember rows that were just delivered."""
        if not len(rows):
            return
        self._newest_ms = max(self._newest_ms, int(rows["time_msc"].max()))
        self._parts.append(rows)
        self._rows += len(rows)
        if len(self._parts) > 64 or self._rows > REMEMBERED_ROWS_MAX:
            self._forget()

    def compare(self, got: Ticks, from_ms: int, to_ms: int) -> tuple[Ticks, int]:
        """Compare what the terminal now holds of from_ms <= time < to_ms with what was delivered.

        Returns the rows that were added, in order, and how many milliseconds hold other or fewer ticks than before.
        Where nothing is remembered nothing is said.
        """
        from_ms = max(from_ms, self.complete_from_ms)
        known = _between(self._joined(), from_ms, to_ms)
        got = _between(got, from_ms, to_ms)
        if known.tobytes() == got.tobytes():
            return got[:0], 0
        added: list[Ticks] = []
        altered = 0
        for ms in _differing_ms(known, got):
            before, after = known[known["time_msc"] == ms], got[got["time_msc"] == ms]
            added.append(_extra(before, after))
            altered += not _contains(after, before)
        rows = join(added) if added else got[:0]
        return rows, altered

    def replace(self, got: Ticks, from_ms: int, to_ms: int) -> None:
        """The terminal's word for this span counts from now on."""
        rows = self._joined()
        outside = rows[(rows["time_msc"] < from_ms) | (rows["time_msc"] >= to_ms)]
        self._parts = [join((_between(got, from_ms, to_ms), outside))]
        self._rows = len(self._parts[0])

    def window(self) -> tuple[int, int]:
        """Return the span of market time that can be compared and lies wholly behind the newest second, in ms."""
        to_ms = self._newest_ms // 1_000 * 1_000
        return max(self.complete_from_ms, to_ms - WINDOW_MS), to_ms

    def _joined(self) -> Ticks:
        if len(self._parts) != 1:
            self._parts = [join(self._parts)]
        return self._parts[0]

    def _forget(self) -> None:
        rows = self._joined()
        oldest_ms = self._newest_ms - WINDOW_MS
        if len(rows) > REMEMBERED_ROWS_MAX:
            # Cut between two seconds, so that what is remembered of each is all of it.
            oldest_ms = (int(np.sort(rows["time_msc"])[-REMEMBERED_ROWS_MAX // 2]) // 1_000 + 1) * 1_000
        oldest_ms = oldest_ms // 1_000 * 1_000
        if oldest_ms > self.complete_from_ms:
            self.complete_from_ms = oldest_ms
            rows = rows[rows["time_msc"] >= oldest_ms].copy()
        self._parts = [rows]
        self._rows = len(rows)


def _between(rows: Ticks, from_ms: int, to_ms: int) -> Ticks:
    return rows[(rows["time_msc"] >= from_ms) & (rows["time_msc"] < to_ms)]


def _differing_ms(known: Ticks, got: Ticks) -> list[int]:
    """Return the milliseconds whose ticks are not the same ones, in whatever order."""
    both = join((known, got))
    packed, inverse = np.unique(both.view(f"V{TICK_BYTES}"), return_inverse=True)
    balance = np.zeros(len(packed), dtype=np.int64)
    np.add.at(balance, inverse[: len(known)], 1)
    np.add.at(balance, inverse[len(known) :], -1)
    unequal: list[int] = np.unique(both["time_msc"][balance[inverse] != 0]).tolist()
    return unequal


def _contains(after: Ticks, before: Ticks) -> bool:
    return not Counter(row.tobytes() for row in before) - Counter(row.tobytes() for row in after)


def _extra(before: Ticks, after: Ticks) -> Ticks:
    """Return the rows by which one millisecond has grown, empty when it has not."""
    grown_by = len(after) - len(before)
    if grown_by <= 0:
        return after[:0]
    if not _contains(after, before):
        return after[-grown_by:]
    left = Counter(row.tobytes() for row in before)
    extra = np.zeros(len(after), dtype=np.bool_)
    for at, row in enumerate(after):
        packed = row.tobytes()
        if left[packed]:
            left[packed] -= 1
        else:
            extra[at] = True
    return after[extra]
