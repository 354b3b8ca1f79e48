"""Read a symbol's history by polling whole seconds, without losing or doubling a tick. Pure: no clock, no terminal.

State is (M, n): n ticks of the millisecond M, the newest, have been delivered. A read asks for everything from second
M // 1000 on, whose delivered part comes first and is skipped by position: identical ticks are real, so content never
identifies one. A digest of the delivered part tells when the terminal has changed its history behind us.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from bridge.connector.late_rows import RecentRows
from bridge.connector.rows import EMPTY, join
from core.model.ticks import Ticks

PAGE_ROWS_MAX: Final = 2**21
"""Ticks of one second that can be read: 126 MB of rows."""
PREFIX_UNKNOWN: Final = -1
CONFIRMATIONS: Final = 2
"""A changed history must be read this often, the same each time: a glitch of one answer must not double ticks."""
SECOND_MS: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CursorState:
    """What must survive a restart; stored in the same transaction as the ticks it speaks of.

    prefix_rows: ticks of second time_msc // 1000 delivered, PREFIX_UNKNOWN when only (time_msc, count) is known.
    prefix_digest: of those rows.
    """

    time_msc: int
    count: int
    prefix_rows: int = PREFIX_UNKNOWN
    prefix_digest: int = 0

    @property
    def second(self) -> int:
        return self.time_msc // SECOND_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one answer brought. rows: new ticks; again: more is waiting, ask at once; revised: what changed, if so."""

    state: CursorState
    rows: Ticks
    again: bool
    revised: str = ""


def digest(rows: Ticks) -> int:
    """Return 63 bits of a digest over packed rows."""
    packed = np.ascontiguousarray(rows).tobytes()
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little") >> 1


def start_at(second: int) -> CursorState:
    """Return the state of a reader that begins at `second` and has delivered nothing."""
    return CursorState(time_msc=second * SECOND_MS, count=0, prefix_rows=0, prefix_digest=digest(EMPTY))


class Cursor:
    """One symbol's reader: ask from `date_from` for `page` rows, give the answer to `read`, keep it with `commit`.

    page_rows: rows asked for at first; page_rows_catchup: grown to while full pages keep bringing new ticks.
    """

    def __init__(self, state: CursorState, page_rows: int, page_rows_catchup: int = 0) -> None:
        self.state = state
        self._base = page_rows
        self._catchup = max(page_rows, page_rows_catchup)
        self.page = page_rows
        self._recent = RecentRows(state.time_msc, nothing_delivered=state.count == 0)
        self._suspect = 0
        self._suspect_digest = 0

    @property
    def date_from(self) -> int:
        return self.state.second

    @property
    def recent(self) -> RecentRows:
        return self._recent

    def read(self, got: Ticks) -> Step:
        """Return what `got`, the answer to (date_from, page), brings. Changes only how to ask next."""
        full = len(got) >= self.page
        got = got[got["time_msc"] >= self.state.second * SECOND_MS]
        state = self.state
        if state.prefix_rows == PREFIX_UNKNOWN:
            step = self._behind(got, full)
        elif len(got) < state.prefix_rows:
            # A short answer: a page too small for the second, or a terminal that is still loading.
            step = Step(state=state, rows=EMPTY, again=full)
        elif digest(got[: state.prefix_rows]) == state.prefix_digest:
            self._suspect = 0
            step = Step(state=self._state_behind(got), rows=got[state.prefix_rows :], again=full)
        else:
            step = self._changed(got, full)
        self._set_page(full, len(step.rows))
        return step

    def commit(self, step: Step) -> None:
        """The ticks of `step` are safe: go on behind them."""
        self.state = step.state
        self._recent.add(step.rows)

    def _set_page(self, full: bool, new_rows: int) -> None:
        if not full:
            self.page = self._base
        elif not new_rows:
            self.page = min(self.page * 2, PAGE_ROWS_MAX)
        elif self.page < self._catchup:
            self.page = min(self.page * 2, self._catchup)

    def _behind(self, got: Ticks, full: bool) -> Step:
        """Skip by (M, n) alone: of M the first n, before M everything."""
        if not self._reaches_newest(got):
            return Step(state=self.state, rows=EMPTY, again=full)
        return Step(state=self._state_behind(got), rows=got[self._undelivered(got)], again=full)

    def _reaches_newest(self, got: Ticks) -> bool:
        """Whether `got` goes on to where we stand; a small page may end before."""
        times = got["time_msc"]
        at_newest = int(np.count_nonzero(times == self.state.time_msc))
        return at_newest >= self.state.count or bool((times > self.state.time_msc).any())

    def _undelivered(self, got: Ticks) -> npt.NDArray[np.bool_]:
        at_newest = got["time_msc"] == self.state.time_msc
        ordinal = np.cumsum(at_newest)
        newer: npt.NDArray[np.bool_] = got["time_msc"] > self.state.time_msc
        newer |= at_newest & (ordinal > self.state.count)
        return newer

    def _changed(self, got: Ticks, full: bool) -> Step:
        """The delivered part looks different. Act only when the terminal says so again."""
        state = self.state
        seen = digest(got[: state.prefix_rows])
        self._suspect = self._suspect + 1 if seen == self._suspect_digest else 1
        self._suspect_digest = seen
        if self._suspect < CONFIRMATIONS:
            return Step(state=state, rows=EMPTY, again=True)
        if full and not self._reaches_newest(got):
            return Step(state=state, rows=EMPTY, again=True)
        self._suspect = 0
        newer = self._undelivered(got)
        older = got[~newer & (got["time_msc"] < state.time_msc)]
        late, altered = self._recent.compare(older, state.second * SECOND_MS, state.time_msc)
        what = f"{len(late)} late ticks, {altered} altered in second {state.second}"
        rows = join((late, got[newer])) if len(late) else got[newer]
        return Step(state=self._state_behind(got), rows=rows, again=full, revised=what)

    def _state_behind(self, got: Ticks) -> CursorState:
        """Return the state after everything in `got` has been delivered."""
        if not len(got):
            return self.state
        newest = int(got["time_msc"].max())
        if newest < self.state.time_msc:
            # The terminal shows less than it did: only (M, n) is left to go by.
            return replace(self.state, prefix_rows=PREFIX_UNKNOWN, prefix_digest=0)
        prefix = got[got["time_msc"] >= newest // SECOND_MS * SECOND_MS]
        count = int(np.count_nonzero(got["time_msc"] == newest))
        return CursorState(
            time_msc=newest,
            # A fresh reader may be told a count the terminal does not show (yet); it never goes back.
            count=max(count, self.state.count) if newest == self.state.time_msc else count,
            prefix_rows=len(prefix),
            prefix_digest=digest(prefix),
        )
