"""Time."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Time, so that tests can own it."""

    def now_ms(self) -> int:
        """UTC epoch milliseconds."""

    def monotonic_s(self) -> float:
        """Seconds that never go back."""
