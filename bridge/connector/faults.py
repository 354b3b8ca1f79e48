"""What can go wrong with a terminal, on purpose: for tests and demonstrations, seeded, off by default."""

import os
import random
import time
from collections import deque
from pathlib import Path
from typing import Final, NoReturn, Protocol

import msgspec
import numpy as np

from bridge.connector.terminal import TerminalCode
from bridge.connector.trades import SendResult
from core.model.ticks import Ticks

LIVES_FILE: Final = "lives"
HANG_S: Final = 3_600.0
REVISED_AFTER_MS: Final = 400
"""Younger rows are shown as they were made, older ones as revised: a reader that keeps up has seen both."""
DISCONNECTED_CALLS: Final = 20
REPEATED_ROWS_MAX: Final = 50


class OrderFaultPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Chances are of each order_send, from 0 to 1; at most one of them happens to it, besides `delay`.

    Not executed: nothing: None. reject: `reject_retcode`. die_before: the terminal's process ends.
    fail_after_placed: 10008, and then the order is rejected.
    Executed: partial: half of it. timeout: answers 10012. disconnect: 10031. forget: None. hang: never returns.
    die: the terminal's process ends. rewrite_comment: chance that the broker puts its own comment in place of ours.
    per_second_max: requests the server looks at within a second, the others are answered 10024; 0: all.
    """

    delay: float = 0.0
    delay_ms: int = 100
    nothing: float = 0.0
    reject: float = 0.0
    reject_retcode: int = 10_006
    die_before: float = 0.0
    fail_after_placed: float = 0.0
    partial: float = 0.0
    timeout: float = 0.0
    disconnect: float = 0.0
    forget: float = 0.0
    hang: float = 0.0
    die: float = 0.0
    rewrite_comment: float = 0.0
    per_second_max: int = 0


class FaultPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Chances are of each copy call, from 0 to 1.

    hang: never returns. refuse: None with an error. repeat: begins with rows from before the second asked for.
    partial: fewer rows than there are. delay: `delay_ms` later. disconnect: refuses DISCONNECTED_CALLS in a row.
    revise: chance of each second that one of its rows is changed afterwards.
    clock_jump_*: so many seconds after the market opens, the server's clock is set forward.
    busy_*: every so many seconds, one with so many extra ticks.
    """

    hang: float = 0.0
    refuse: float = 0.0
    repeat: float = 0.0
    partial: float = 0.0
    delay: float = 0.0
    delay_ms: int = 100
    disconnect: float = 0.0
    revise: float = 0.0
    clock_jump_after_s: int = 0
    clock_jump_s: int = 0
    busy_every_s: int = 0
    busy_rows: int = 0
    orders: OrderFaultPlan = OrderFaultPlan()


class _Refuser(Protocol):
    def refuse(self, code: TerminalCode, text: str) -> None: ...


class Faults:
    """Carries a plan out. Each life of the process draws other chances, or a fault on its first call were eternal."""

    def __init__(self, plan: FaultPlan, seed: int, directory: Path, clock_from_ms: int) -> None:
        self._plan = plan
        self._active = plan != FaultPlan()
        life = _next_life(directory) if self._active else 0
        self._random = random.Random(f"{seed}/{life}")  # noqa: S311 - draws faults
        self._jump_at_ms = clock_from_ms + plan.clock_jump_after_s * 1_000
        self._refusals_left = 0
        self._before: dict[str, Ticks] = {}

    def refuses(self, terminal: _Refuser) -> bool:
        """Hang or wait, if it is time to; return whether the call is refused."""
        if not self._active:
            return False
        if self._happens(self._plan.hang):
            time.sleep(HANG_S)
        if self._happens(self._plan.delay):
            time.sleep(self._plan.delay_ms / 1_000)
        if not self._refusals_left and self._happens(self._plan.disconnect):
            self._refusals_left = DISCONNECTED_CALLS
        if self._refusals_left:
            self._refusals_left -= 1
            terminal.refuse(TerminalCode.FAIL, "no connection to the trade server")
            return True
        if self._happens(self._plan.refuse):
            terminal.refuse(TerminalCode.NOT_FOUND, "history is being loaded")
            return True
        return False

    def is_disconnected(self) -> bool:
        return self._refusals_left > 0

    def apply(self, rows: Ticks, now_ms: int, count: int | None) -> Ticks:
        """Change what the history says: revised rows and the jump of the clock."""
        if not self._active:
            return rows
        return self.shifted(self._revised(rows, now_ms))[:count]

    def made_at(self, shown_ms: int) -> int:
        """Return when a row that shows `shown_ms` was made; the first moment after the jump for times it skipped."""
        if not self._plan.clock_jump_s or shown_ms <= self._jump_at_ms:
            return shown_ms
        return max(self._jump_at_ms, shown_ms - self._plan.clock_jump_s * 1_000)

    def shifted(self, rows: Ticks) -> Ticks:
        """Apply the jump of the server's clock."""
        if not self._plan.clock_jump_s:
            return rows
        rows = rows.copy()
        later = rows["time_msc"] >= self._jump_at_ms
        rows["time_msc"][later] += self._plan.clock_jump_s * 1_000
        rows["time"] = rows["time_msc"] // 1_000
        return rows

    def distort(self, symbol: str, rows: Ticks | None, date_from: int, count: int) -> Ticks | None:
        """Change one answer: fewer rows, or rows nobody asked for in front."""
        if not self._active or rows is None or not len(rows):
            return rows
        if self._happens(self._plan.partial):
            rows = rows[: self._random.randint(0, len(rows) - 1)]
        if self._happens(self._plan.repeat):
            return self._with_repeats(symbol, rows, date_from, count)
        self._before[symbol] = rows
        return rows

    def _with_repeats(self, symbol: str, rows: Ticks, date_from: int, count: int) -> Ticks:
        old = self._before.get(symbol)
        if old is None:
            return rows
        earlier = old[old["time_msc"] < date_from * 1_000][-min(REPEATED_ROWS_MAX, max(1, count // 2)) :]
        return np.concatenate((earlier, rows))[:count]

    def _revised(self, rows: Ticks, now_ms: int) -> Ticks:
        if not self._plan.revise or not len(rows):
            return rows
        rows = rows.copy()
        old = np.flatnonzero(rows["time_msc"] < now_ms - REVISED_AFTER_MS)
        seconds, first = np.unique(rows["time"][old], return_index=True)
        threshold = int(self._plan.revise * 1_000)
        for second, at in zip(seconds.tolist(), old[first].tolist(), strict=True):
            if second * 2_654_435_761 % 1_000 < threshold:
                rows["bid"][at] *= 0.999
        return rows

    def _happens(self, chance: float) -> bool:
        return chance > 0 and self._random.random() < chance


class OrderFaults:
    """Carries a plan about orders out."""

    def __init__(self, plan: OrderFaultPlan, seed: int, directory: Path) -> None:
        self._plan = plan
        active = plan != OrderFaultPlan()
        life = _next_life(directory / "orders") if active else 0
        self._random = random.Random(f"orders/{seed}/{life}")  # noqa: S311 - draws faults
        self.reject_retcode = plan.reject_retcode
        self._looked_at_s: deque[float] = deque(maxlen=max(1, plan.per_second_max))

    def too_many(self) -> bool:
        """Tell whether the server refuses to look at this request, too."""
        if not self._plan.per_second_max:
            return False
        now_s = time.monotonic()
        if len(self._looked_at_s) == self._plan.per_second_max and now_s - self._looked_at_s[0] < 1.0:
            return True
        self._looked_at_s.append(now_s)
        return False

    def draw(self) -> str:
        """Wait if it is time to; return the name of what happens to this order, "" for nothing."""
        if self._random.random() < self._plan.delay:
            time.sleep(self._plan.delay_ms / 1_000)
        drawn = self._random.random()
        for name in ORDER_FAULTS:
            drawn -= getattr(self._plan, name)
            if drawn < 0:
                return name
        return ""

    def comment(self, comment: str) -> str:
        """Return what the broker keeps as an order's comment."""
        return "broker/7" if self._random.random() < self._plan.rewrite_comment else comment

    def spoil(self, fault: str, result: SendResult) -> SendResult | None:
        """Return the answer that comes of what was carried out."""
        if fault == "timeout":
            return SendResult(retcode=10_012)
        if fault == "disconnect":
            return SendResult(retcode=10_031)
        if fault == "forget":
            return None
        if fault == "hang":
            time.sleep(HANG_S)
        if fault == "die":
            self.die()
        return result

    def die(self) -> NoReturn:
        """End the process as a crash does."""
        os._exit(9)


ORDER_FAULTS: Final = (
    "nothing",
    "reject",
    "die_before",
    "fail_after_placed",
    "partial",
    "timeout",
    "disconnect",
    "forget",
    "hang",
    "die",
)


def _next_life(directory: Path) -> int:
    path = directory / LIVES_FILE
    try:
        life = int(path.read_text()) + 1
    except (OSError, ValueError):
        life = 1
    directory.mkdir(parents=True, exist_ok=True)
    path.write_text(str(life))
    return life
