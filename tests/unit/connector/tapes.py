"""Histories for tests, and the polling of one without a process in between."""

from pathlib import Path

import numpy as np
import pytest

from bridge.connector.cursor import Cursor, CursorState, start_at
from core.model.ticks import TICK_DTYPE, Ticks

DATA = Path(__file__).parents[4] / "shared" / "data"


def data_file(name: str) -> Path:
    """A real recording; skips where the folder is absent."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"the recordings folder {DATA} is absent")
    return path


def ticks(times_ms: list[int], bids: list[float] | None = None) -> Ticks:
    rows = np.zeros(len(times_ms), TICK_DTYPE)
    rows["time_msc"] = times_ms
    rows["time"] = rows["time_msc"] // 1_000
    rows["bid"] = 1.0 if bids is None else bids
    rows["ask"] = rows["bid"] + 0.0001
    rows["flags"] = 6
    return rows


class Tape:
    """A history that becomes visible with time, answered like the package does."""

    def __init__(self, rows: Ticks) -> None:
        self.rows = rows
        self.times = np.ascontiguousarray(rows["time_msc"])

    def copy_ticks_from(self, now_ms: float, date_from: int, count: int) -> Ticks:
        times = self.times
        start = np.searchsorted(times, date_from * 1_000, side="left")
        stop = np.searchsorted(times, now_ms, side="right")
        return self.rows[start : max(start, min(stop, start + count))]


def poll_all(
    tape: Tape, interval_ms: float, page_rows: int, state: CursorState | None = None, catchup: int = 0
) -> Ticks:
    """Poll a tape from before its first row until after its last; return what a reader got."""
    times = tape.rows["time_msc"]
    cursor = Cursor(state or start_at(int(times[0]) // 1_000), page_rows, catchup)
    got: list[Ticks] = []
    now_ms = float(times[0]) - 1
    while True:
        step = cursor.read(tape.copy_ticks_from(now_ms, cursor.date_from, cursor.page))
        cursor.commit(step)
        assert not step.revised
        got.append(step.rows)
        if not step.again:
            if now_ms > times[-1]:
                return np.concatenate(got)
            now_ms += interval_ms
