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

from bridge.connector.faults import FaultPlan, Faults, OrderFaults
from bridge.connector.microstructure import BLOCK_MS, BLOCK_S, INSTRUMENTS, Market
from bridge.connector.playback import HistoryTerminal
from bridge.connector.simulated_broker import SimulatedBroker
from bridge.connector.simulated_checks import (
    VOLUME_MAX,
    VOLUME_MIN,
    VOLUME_STEP,
    Fields,
    filling_mode,
    read,
)
from bridge.connector.terminal import AccountInfo, SymbolInfo, TerminalCode, TerminalInfo, Traits
from bridge.connector.trades import (
    CheckResult,
    Execution,
    MadeDeal,
    OpenPosition,
    PlacedOrder,
    Request,
    SendResult,
)
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
    file, or now. login, server, hedging: of its account. faults: what goes wrong, nothing by default.
    """

    seed: int = 1
    rate: float = 7.0
    symbols: tuple[str, ...] = tuple(INSTRUMENTS)
    utc_offset_s: int = UTC_OFFSET_S
    anchor_s: int = 0
    login: int = 1
    server: str = "simulation"
    hedging: bool = False
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
        self._broker = SimulatedBroker(
            directory,
            hedging=self._options.hedging,
            infos={info.name: info for info in self.infos()},
            quote=self.symbol_info_tick,
            ticks=lambda symbol, from_ms, to_ms: self._visible(symbol, from_ms, to_ms, None),
            now_ms=self._now_ms,
            faults=OrderFaults(plan.orders, self._options.seed, directory),
        )

    def traits(self) -> Traits:
        return Traits()

    def finished(self) -> bool:
        return False

    def infos(self) -> tuple[SymbolInfo, ...]:
        return tuple(_info(name) for name in self._options.symbols)

    def terminal_info(self) -> TerminalInfo | None:
        return TerminalInfo(connected=not self._faults.is_disconnected(), name="simulation")

    def account_info(self) -> AccountInfo | None:
        return self._broker.account(AccountInfo(login=self._options.login, server=self._options.server))

    def order_check(self, request: Request, /) -> CheckResult | None:
        fields = self._read(request)
        return None if fields is None else self._broker.check(fields)

    def order_send(self, request: Request, /) -> SendResult | None:
        fields = self._read(request)
        if fields is None:
            return None
        result = self._broker.send(fields)
        if result is None:
            self.refuse(TerminalCode.INTERNAL_FAIL_RECEIVE, "IPC recv failed")
        return result

    def orders_get(self, *, ticket: int | None = None) -> tuple[PlacedOrder, ...] | None:
        self._broker.advance()
        return tuple(one for one in self._broker.book.orders if ticket in (None, one.ticket))

    def positions_get(
        self, *, symbol: str | None = None, ticket: int | None = None
    ) -> tuple[OpenPosition, ...] | None:
        self._broker.advance()
        held = self._broker.book.positions
        return tuple(one for one in held if ticket in (None, one.ticket) and symbol in (None, one.symbol))

    def history_orders_get(
        self, date_from: int = 0, date_to: int = 0, *, ticket: int | None = None
    ) -> tuple[PlacedOrder, ...] | None:
        self._broker.advance()
        ended = self._broker.book.ended
        if ticket is not None:
            return tuple(one for one in ended if one.ticket == ticket)
        return tuple(one for one in ended if date_from <= one.time_done_msc // 1_000 <= date_to)

    def history_deals_get(
        self, date_from: int = 0, date_to: int = 0, *, ticket: int | None = None
    ) -> tuple[MadeDeal, ...] | None:
        self._broker.advance()
        deals = self._broker.book.deals
        if ticket is not None:
            return tuple(one for one in deals if one.order == ticket)
        return tuple(one for one in deals if date_from <= one.time_msc // 1_000 <= date_to)

    def _read(self, request: Request) -> Fields | None:
        fields = read(request)
        if fields is None:
            self.refuse(TerminalCode.INVALID_PARAMS, "Invalid argument")
        return fields

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


def _info(name: str) -> SymbolInfo:
    digits = INSTRUMENTS[name].digits
    return SymbolInfo(
        name=name,
        digits=digits,
        filling_mode=filling_mode(name),
        expiration_mode=15,
        trade_exemode=Execution.MARKET,
        trade_tick_size=10.0**-digits,
        volume_min=VOLUME_MIN,
        volume_max=VOLUME_MAX,
        volume_step=VOLUME_STEP,
    )


def _opening_hours(anchor_server_s: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return (open, close) in server ms: the end of Friday, and from shortly before the anchor on."""
    monday_s = (anchor_server_s - HISTORY_S) // BLOCK_S * BLOCK_S
    friday_close_s = monday_s - WEEKEND_S
    return ((friday_close_s - FRIDAY_S) * 1_000, friday_close_s * 1_000), (monday_s * 1_000, 2**53)
