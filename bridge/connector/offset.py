"""The trade server's clock minus UTC, measured on ticks that arrive while we watch. Pure; refuses to guess."""

from typing import Final

from core.model.ticks import UTC_OFFSET_UNKNOWN

STEP_S: Final = 900
"""Every zone in use is a multiple of a quarter of an hour away from UTC."""
OFFSET_S_MAX: Final = 14 * 3_600
RESIDUAL_S_MAX: Final = 60.0
"""A tick further off its quarter of an hour was not made just now, or a clock is wrong."""
AGREEING_MIN: Final = 3
"""So many measurements in a row must agree before they count: one late tick is no measurement."""
MEASURE_INTERVAL_S: Final = 1.0
RECALLED_S_MAX: Final = 24 * 3_600
"""Older than a day it may be of the other half of the year."""
REMEASURE_S: Final = 3_600.0
"""Daylight saving moves it."""


class OffsetMeter:
    """offset_s: the offset in force, UTC_OFFSET_UNKNOWN until it is known. declared_s: what the adapter knows."""

    def __init__(self, declared_s: int | None = None) -> None:
        self._declared = declared_s is not None
        self.offset_s = UTC_OFFSET_UNKNOWN if declared_s is None else declared_s
        self._candidate_s = UTC_OFFSET_UNKNOWN
        self._agreeing = 0
        self._measured_at_s = float("-inf")
        self._confirmed_at_s = float("-inf")

    def recall(self, offset_s: int, measured_at_s: int, utc_s: float) -> None:
        """Take over what an earlier run measured, if that is not long ago; it is measured again all the same."""
        if not self._declared and 0 <= utc_s - measured_at_s <= RECALLED_S_MAX:
            self.offset_s = offset_s

    def observe(self, tick_time_msc: int, utc_s: float) -> bool:
        """Take the newest tick that came in while we watched. Return whether the offset in force has changed.

        utc_s: our clock when it came in.
        """
        if self._declared or not self._is_due(utc_s):
            return False
        self._measured_at_s = utc_s
        raw_s = tick_time_msc / 1_000 - utc_s
        snapped_s = round(raw_s / STEP_S) * STEP_S
        if abs(snapped_s) > OFFSET_S_MAX or abs(raw_s - snapped_s) > RESIDUAL_S_MAX:
            self._agreeing = 0
            return False
        self._agreeing = self._agreeing + 1 if snapped_s == self._candidate_s else 1
        self._candidate_s = snapped_s
        if self._agreeing < AGREEING_MIN:
            return False
        self._agreeing = 0
        self._confirmed_at_s = utc_s
        changed = snapped_s != self.offset_s
        self.offset_s = snapped_s
        return changed

    def _is_due(self, utc_s: float) -> bool:
        if utc_s < self._measured_at_s:
            # Our own clock was set back.
            self._measured_at_s = self._confirmed_at_s = float("-inf")
        fresh = utc_s - self._confirmed_at_s < REMEASURE_S
        return not fresh and utc_s - self._measured_at_s >= MEASURE_INTERVAL_S
