"""The demo's terminal: a simulated FX broker whose whole history follows from a seed and the time of its first start.

A restarted one serves the identical history. The market is open for some minutes on a "Friday evening", closed over a
weekend, and open without end from shortly before the first start, so that a demo begun on a Sunday ticks.
"""

import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from bridge.connector.faults import FaultPlan, Faults
from bridge.connector.microstructure import BLOCK_MS, BLOCK_S, INSTRUMENTS, Market
from bridge.connector.playback import HistoryTerminal
from bridge.connector.terminal import SymbolInfo, TerminalInfo, Traits
from core.errors.exceptions import Misconfigured
from core.infrastructure.config_manager import write_settings_file
from core.model.ticks import TICK_DTYPE, Ticks

STATE_FILE: Final = "simulated.json"
HISTORY_S: Final = 15 * 60
WEEKEND_S: Final = 48 * 3_600
FRIDAY_S: Final = 10 * 60
CACHED_BLOCKS_MAX: Final = 256
UTC_OFFSET_S: Final = 10_800
"""As of brokers whose day ends at New York's close."""


class SimulatedOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """rate: ticks a second and symbol, on average. anchor_s: UTC second of the first start; 0 takes it from the state
    file, or now. faults: what goes wrong, nothing by default.
    """

    seed: int = 1
    rate: float = 7.0
    symbols: tuple[str, ...] = tuple(INSTRUMENTS)
    utc_offset_s: int = UTC_OFFSET_S
    anchor_s: int = 0
    faults: FaultPlan = FaultPlan()


class SimulatedTerminal(HistoryTerminal):
    """Ticks become visible as time passes; nothing is kept but the anchor."""

    def __init__(self, options: Mapping[str, Any], directory: Path) -> None:
        try:
            self._options = msgspec.convert(dict(options), SimulatedOptions)
        except msgspec.ValidationError as e:
            raise Misconfigured(
                f"terminal_options of the simulation: {e}", code="BAD_TERMINAL_OPTIONS"
            ) from e
        unknown = set(self._options.symbols) - set(INSTRUMENTS)
        if unknown or not 0 < self._options.rate <= 50_000:
            raise Misconfigured(
                f"the simulation knows {', '.join(INSTRUMENTS)} at rates up to 50000",
                code="BAD_TERMINAL_OPTIONS",
            )
        plan = self._options.faults
        self._market = Market(
            seed=self._options.seed,
            rate=self._options.rate,
            busy_every_blocks=plan.busy_every_s // BLOCK_S,
            busy_rows=plan.busy_rows,
        )
        self._open = _opening_hours(self._anchor(directory) + self._options.utc_offset_s)
        self._faults = Faults(plan, self._options.seed, directory, clock_from_ms=self._open[1][0])
        self._blocks: OrderedDict[tuple[str, int], Ticks] = OrderedDict()

    def traits(self) -> Traits:
        return Traits()

    def finished(self) -> bool:
        return False

    def infos(self) -> tuple[SymbolInfo, ...]:
        return tuple(SymbolInfo(name=name, digits=INSTRUMENTS[name].digits) for name in self._options.symbols)

    def terminal_info(self) -> TerminalInfo | None:
        return TerminalInfo(connected=not self._faults.is_disconnected(), name="simulation")

    def copy_ticks_from(self, symbol: str, date_from: int, count: int, flags: int, /) -> Ticks | None:
        if self._faults.refuses(self):
            return None
        rows = super().copy_ticks_from(symbol, date_from, count, flags)
        return self._faults.distort(symbol, rows, date_from, count)

    def select_rows(self, symbol: str, from_ms: int, to_ms: int | None, count: int | None) -> Ticks:
        now_ms = self._now_ms()
        stop_ms = now_ms if to_ms is None else min(now_ms, self._faults.made_at(to_ms))
        from_ms = max(self._faults.made_at(from_ms), self._open[0][0])
        return self._faults.apply(self._visible(symbol, from_ms, stop_ms, count), now_ms, count)

    def truth(self, symbol: str, from_ms: int, to_ms: int) -> Ticks:
        """Return every tick of from_ms <= time < to_ms, seen or not, as it was made: what tests compare with."""
        return self._faults.shifted(self._visible(symbol, max(from_ms, self._open[0][0]), to_ms - 1, None))

    def newest(self, symbol: str) -> Ticks:
        now_ms = self._now_ms()
        for back_ms in (BLOCK_MS, 60 * BLOCK_MS):
            rows = self.select_rows(symbol, now_ms - back_ms, None, None)
            if len(rows):
                break
        return rows[-1:]

    def _now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self._options.utc_offset_s * 1_000

    def _anchor(self, directory: Path) -> int:
        if self._options.anchor_s:
            return self._options.anchor_s
        path = directory / STATE_FILE
        try:
            return int(msgspec.json.decode(path.read_bytes(), type=dict[str, int])["anchor_s"])
        except (OSError, msgspec.DecodeError, KeyError):
            anchor_s = int(time.time())
            directory.mkdir(parents=True, exist_ok=True)
            write_settings_file(path, {"anchor_s": anchor_s})
            return anchor_s

    def _visible(self, symbol: str, from_ms: int, to_ms: int, count: int | None) -> Ticks:
        """Return ticks of the opening hours, both ends included, the first `count` of them."""
        parts: list[Ticks] = []
        wanted = count
        for open_ms, close_ms in self._open:
            start_ms, stop_ms = max(from_ms, open_ms), min(to_ms, close_ms - 1)
            for number in range(start_ms // BLOCK_MS, stop_ms // BLOCK_MS + 1):
                rows = self._block(symbol, number)
                part = rows[(rows["time_msc"] >= start_ms) & (rows["time_msc"] <= stop_ms)][:wanted]
                parts.append(part)
                if wanted is not None:
                    wanted -= len(part)
                    if not wanted:
                        return np.concatenate(parts)
        return np.concatenate(parts) if parts else np.empty(0, TICK_DTYPE)

    def _block(self, symbol: str, number: int) -> Ticks:
        key = (symbol, number)
        rows = self._blocks.get(key)
        if rows is None:
            rows = self._blocks[key] = self._market.block(INSTRUMENTS[symbol], number)
            if len(self._blocks) > CACHED_BLOCKS_MAX:
                self._blocks.popitem(last=False)
        return rows


def _opening_hours(anchor_server_s: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return (open, close) in server ms: the end of Friday, and from shortly before the anchor on."""
    monday_s = (anchor_server_s - HISTORY_S) // BLOCK_S * BLOCK_S
    friday_close_s = monday_s - WEEKEND_S
    return ((friday_close_s - FRIDAY_S) * 1_000, friday_close_s * 1_000), (monday_s * 1_000, 2**53)
