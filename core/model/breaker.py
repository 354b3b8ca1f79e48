"""A circuit breaker: a store that has not answered several times in a row is left alone for a moment.

Whoever asks meanwhile is refused at once instead of waiting for the same time limit as all before. After the pause
one may try; if that goes well everybody may. It knows no store and no clock but the one it is given.
"""

import time
from collections.abc import Callable
from typing import Final

FAILURES_MAX: Final = 5
PAUSE_S: Final = 0.5


class Breaker:
    """admit, then succeeded or failed, once for each that was admitted."""

    def __init__(
        self,
        failures_max: int = FAILURES_MAX,
        pause_s: float = PAUSE_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._failures_max = failures_max
        self._pause_s = pause_s
        self._now = now
        self._failures = 0
        self._try_at_s = 0.0

    @property
    def is_open(self) -> bool:
        """Whether it refuses everybody but the one that tries."""
        return self._failures >= self._failures_max

    def admit(self) -> bool:
        """Tell whether the store may be asked now."""
        if not self.is_open:
            return True
        if self._now() < self._try_at_s:
            return False
        # This one tries. If nothing is heard of it, the next may try a pause later.
        self._try_at_s = self._now() + self._pause_s
        return True

    def succeeded(self) -> None:
        """The store has answered, if only with a refusal."""
        self._failures = 0

    def failed(self) -> None:
        """The store has not answered."""
        self._failures += 1
        if self.is_open:
            self._try_at_s = self._now() + self._pause_s
