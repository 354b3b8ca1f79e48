"""How often one peer may do something: a burst, then so many a second. Local to its connection."""


class Allowance:
    """A token bucket. burst: how many at once after a long silence."""

    __slots__ = ("_at_s", "_burst", "_left", "_per_s")

    def __init__(self, *, burst: int, per_s: float) -> None:
        self._burst = burst
        self._per_s = per_s
        self._left = float(burst)
        self._at_s = 0.0

    def left(self, at_s: float) -> float:
        """Return how many there are. at_s: a monotonic clock's."""
        self._left = min(self._burst, self._left + max(0.0, at_s - self._at_s) * self._per_s)
        self._at_s = at_s
        return self._left

    def take(self, at_s: float) -> bool:
        """Use one, if there is one. at_s: a monotonic clock's."""
        if self.left(at_s) < 1:
            return False
        self._left -= 1
        return True
