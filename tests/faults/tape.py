"""The tape: every tick of a run, made in advance from a seed, and a terminal that shows it as time passes.

The terminal is what a connector reads; the same rows in the test's hands are the truth it is judged by.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bridge.connector.playback import HistoryTerminal
from bridge.connector.terminal import SymbolInfo, Traits
from core.model.ticks import TICK_DTYPE, Quarantine, Ticks

SYMBOLS = ("EURUSD", "GBPUSD", "XAUUSD")
ROWS_PER_SECOND = 400
"""Of the tape's own clock, and symbol."""
BEGIN_MS = 1_709_250_900_000  # 2024-02-29 23:55 UTC: a month ends five minutes later
WEEKEND_ROWS = 30_000
WEEKEND_MS = 17 * 86_400_000
"""After so many rows the market is closed for so long, so that blocks span days and months again and again."""
FACTS = "tape.json"
END_AHEAD_S = 0.1
"""The tape goes on for so long once its end is decided: a terminal must learn of the end before it gets there."""


def make_tape(seed: int, rows: int) -> dict[str, Ticks]:
    """Return each symbol's rows, in order: crowded milliseconds, identical neighbours, bad rows."""
    return {symbol: _rows(np.random.default_rng([seed, at]), rows, at) for at, symbol in enumerate(SYMBOLS)}


def _rows(rng: np.random.Generator, count: int, phase: int) -> Ticks:
    # Several ticks of one millisecond, and now and then none for a while.
    gaps_ms = rng.choice([0, 0, 0, 1, 2, 5, 9], size=count)
    gaps_ms[rng.random(count) < 1e-3] = 300
    weekends = (np.arange(count) + phase * WEEKEND_ROWS // len(SYMBOLS)) // WEEKEND_ROWS
    rows = np.zeros(count, dtype=TICK_DTYPE)
    rows["time_msc"] = BEGIN_MS + np.cumsum(gaps_ms) + weekends * WEEKEND_MS
    rows["time"] = rows["time_msc"] // 1_000
    rows["bid"] = np.round(1.07 + np.cumsum(rng.integers(-1, 2, count)) * 1e-5 % 0.5, 5)
    rows["ask"] = np.round(rows["bid"] + 1e-4, 5)
    rows["flags"] = rng.choice([2, 4, 6], size=count)
    rows["volume"] = rng.integers(0, 3, count)
    rows["volume_real"] = rows["volume"]
    twins = np.flatnonzero((rng.random(count) < 0.02) & (gaps_ms == 0))
    rows[twins[twins > 0]] = rows[twins[twins > 0] - 1]
    bad = rng.random(count)
    rows["bid"][bad < 1e-3] = np.nan
    rows["ask"][(bad >= 1e-3) & (bad < 2e-3)] = 0.5
    return rows


def quarantine(rows: Ticks) -> np.ndarray:
    """Return what the bridge has to say about each of our bad rows."""
    verdict = np.where(rows["ask"] == 0.5, Quarantine.CROSSED.value, Quarantine.OK.value)
    return np.where(np.isnan(rows["bid"]), Quarantine.NOT_FINITE.value, verdict).astype(np.uint8)


@dataclass(frozen=True)
class Facts:
    """What the test tells the terminal. rate: rows a second and symbol; end: rows of the whole tape, once decided."""

    started_at_s: float
    rate: float
    rows: int
    end: int | None = None

    def passed(self) -> int:
        return min(self.rows, int(max(0.0, time.time() - self.started_at_s) * self.rate))

    def visible(self) -> int:
        return self.passed() if self.end is None else min(self.passed(), self.end)


class Tape:
    """The test's side. rows: each symbol's truth; only what `end` leaves of it counts."""

    def __init__(self, directory: Path, seed: int, rate: float, rows: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.rows = make_tape(seed, rows)
        for symbol, truth in self.rows.items():
            np.save(directory / f"{symbol}.npy", truth)
        self._facts = Facts(time.time(), rate, rows)
        self._tell()

    def end(self) -> int:
        """Let the tape end a moment from now; return its length."""
        if self._facts.end is None:
            self._tell_end()
            while self._facts.passed() > self._facts.end:
                # Told too late: the terminal may have shown more by then.
                self._tell_end()
        return self._facts.end

    def _tell_end(self) -> None:
        facts = self._facts
        end = facts.passed() + int(END_AHEAD_S * facts.rate) + 1
        assert end < facts.rows, f"the tape is too short: {end} rows are visible"
        self._facts = Facts(facts.started_at_s, facts.rate, facts.rows, end)
        self._tell()

    def _tell(self) -> None:
        fresh = self.directory / f"{FACTS}.new"
        fresh.write_text(json.dumps(vars(self._facts)))
        fresh.replace(self.directory / FACTS)


class TapeTerminal(HistoryTerminal):
    """The connector's side: a recording that goes on until the test says where it ends."""

    def __init__(self, options: Mapping[str, Any], _directory: Path) -> None:
        self._tape = Path(options["tape"])
        self._rows: dict[str, Ticks] = {s: np.load(self._tape / f"{s}.npy", mmap_mode="r") for s in SYMBOLS}
        self._times = {s: np.ascontiguousarray(rows["time_msc"]) for s, rows in self._rows.items()}

    def traits(self) -> Traits:
        return Traits(declared_utc_offset_s=0, replays=True)

    def infos(self) -> tuple[SymbolInfo, ...]:
        return tuple(SymbolInfo(name=symbol, digits=5) for symbol in SYMBOLS)

    def finished(self) -> bool:
        facts = self._facts()
        return facts.end is not None and facts.visible() >= facts.end

    def select_rows(self, symbol: str, from_ms: int, to_ms: int | None, count: int | None) -> Ticks:
        start = int(np.searchsorted(self._times[symbol], from_ms, side="left"))
        stop = self._facts().visible()
        if to_ms is not None:
            stop = min(stop, int(np.searchsorted(self._times[symbol], to_ms, side="right")))
        if count is not None:
            stop = min(stop, start + count)
        return np.array(self._rows[symbol][start : max(start, stop)])

    def newest(self, symbol: str) -> Ticks:
        return self.select_rows(symbol, 0, None, None)[-1:]

    def _facts(self) -> Facts:
        return Facts(**json.loads((self._tape / FACTS).read_text()))
