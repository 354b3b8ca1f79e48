"""How often a terminal is asked to change something: as often as there is something, until its server says "too often".

Then each request waits for its turn, twice as long each time it is said again, and half as long after some that were
taken. Pure but for the clock it is given.
"""

from collections.abc import Callable
from typing import Final

PAUSE_S_MIN: Final = 0.1
PAUSE_S_MAX: Final = 2.0
EASED_AFTER: Final = 4
"""Requests that must be taken in a row before the next one comes sooner."""


class Pace:
    """Of one terminal. now_s: a clock that never goes back."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._free_at_s = 0.0
        self._taken = 0
        self.pause_s = 0.0

    def wait_s(self) -> float:
        """Return how long the next request has to wait."""
        return max(0.0, self._free_at_s - self._now_s())

    def refused(self) -> None:
        """Note that requests come too often."""
        self._taken = 0
        self.pause_s = min(max(PAUSE_S_MIN, self.pause_s * 2), PAUSE_S_MAX)
        self._free_at_s = self._now_s() + self.pause_s

    def taken(self) -> None:
        """Note that a request was looked at, whatever was answered to it."""
        self._taken += 1
        if self._taken >= EASED_AFTER:
            self._taken = 0
            self.pause_s = self.pause_s / 2 if self.pause_s > PAUSE_S_MIN else 0.0
        self._free_at_s = self._now_s() + self.pause_s
