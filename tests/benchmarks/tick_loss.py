"""How many ticks each way of reading a terminal loses, on the same tapes: our cursor beside the usual loops.

Run: .venv/bin/python tests/benchmarks/tick_loss.py
Every method polls the same history as it becomes visible; what it keeps is compared with the whole tape.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bridge.connector.cursor import Cursor, start_at
from bridge.connector.microstructure import BLOCK_S, INSTRUMENTS, Market
from bridge.connector.recording import load
from core.model.ticks import Ticks

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SIMULATED_HOUR_BLOCKS = 3_600 // BLOCK_S
FIRST_BLOCK = 175_000_000


@dataclass(frozen=True, slots=True)
class Tape:
    name: str
    rows: Ticks

    def polls(self, interval_ms: float) -> Iterator[int]:
        """How many rows are visible at each poll. Quiet polls, which change nothing for any method, are left out."""
        times = np.ascontiguousarray(self.rows["time_msc"])
        polls = np.ceil((times - times[0]) / interval_ms).astype(np.int64)
        for poll in np.unique(polls).tolist():
            yield int(np.searchsorted(times, times[0] + poll * interval_ms, side="right"))


def our_cursor(tape: Tape, interval_ms: float) -> int:
    """Whole seconds from the cursor on, skipping what was delivered."""
    times = np.ascontiguousarray(tape.rows["time_msc"])
    cursor = Cursor(start_at(int(times[0]) // 1_000), 4_096)
    kept: list[Ticks] = []
    for visible in tape.polls(interval_ms):
        again = True
        while again:
            start = int(np.searchsorted(times, cursor.date_from * 1_000))
            step = cursor.read(tape.rows[start : min(visible, start + cursor.page)])
            cursor.commit(step)
            kept.append(step.rows)
            again = step.again
    got = np.concatenate(kept)
    assert got.tobytes() == tape.rows[: len(got)].tobytes(), "in order and unchanged"
    return len(got)


def latest_tick(tape: Tape, interval_ms: float) -> int:
    """`symbol_info_tick` in a loop; a tick counts when it differs from the last one seen by its position."""
    return len(set(tape.polls(interval_ms)))


def changed_only(tape: Tape, interval_ms: float) -> int:
    """The same, kept only when bid or ask has changed."""
    kept, last = 0, None
    for visible in tape.polls(interval_ms):
        row = tape.rows[visible - 1]
        price = (row["bid"], row["ask"], row["last"])
        kept += price != last
        last = price
    return kept


def content_dedupe(tape: Tape, _interval_ms: float) -> int:
    """Everything is read, and rows equal in every field count as one."""
    return len(np.unique(tape.rows.view(f"V{tape.rows.itemsize}")))


def millisecond_key(tape: Tape, _interval_ms: float) -> int:
    """Everything is read, and a row's key is (symbol, millisecond)."""
    return len(np.unique(tape.rows["time_msc"]))


METHODS: list[tuple[str, Callable[[Tape, float], int], float]] = [
    ("tickgate's cursor, every 50 ms", our_cursor, 50),
    ("tickgate's cursor, every 2.5 s", our_cursor, 2_500),
    ("latest tick, every 10 ms", latest_tick, 10),
    ("latest tick, every 100 ms", latest_tick, 100),
    ("latest tick, every 1 s", latest_tick, 1_000),
    ("latest tick if changed, every 100 ms", changed_only, 100),
    ("whole history, equal rows dropped", content_dedupe, 0),
    ("whole history, keyed by (symbol, ms)", millisecond_key, 0),
]


def tapes() -> Iterator[Tape]:
    market = Market(seed=1, rate=7.0)
    blocks = [market.block(INSTRUMENTS["EURUSD"], FIRST_BLOCK + at) for at in range(SIMULATED_HOUR_BLOCKS)]
    yield Tape("simulated hour", np.concatenate(blocks))
    for name, file in (
        ("WIN$N, 45 s", "mt5_win_ticks.ndjson"),
        ("FXCM EURUSD, 1 day", "fxcm_eurusd_20140508_quote.zip"),
    ):
        if (DATA / file).exists():
            yield Tape(name, next(iter(load(DATA / file).values())).rows)
        else:
            print(f"{name}: left out, {DATA} is absent", file=sys.stderr)


def main() -> int:
    all_tapes = list(tapes())
    print(f"{'ticks lost':40}" + "".join(f"{tape.name:>26}" for tape in all_tapes))
    print(f"{'(of)':40}" + "".join(f"{len(tape.rows):>26,}" for tape in all_tapes))
    ours_lost = 0
    for name, method, interval_ms in METHODS:
        cells = []
        for tape in all_tapes:
            lost = len(tape.rows) - method(tape, interval_ms)
            ours_lost += lost if method is our_cursor else 0
            cells.append(f"{lost:>16,} {lost / len(tape.rows):>8.1%} ")
        print(f"{name:40}" + "".join(cells))
    return int(ours_lost > 0)


if __name__ == "__main__":
    sys.exit(main())
