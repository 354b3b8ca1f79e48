"""How often something may happen: a rate, its sliding window's arithmetic, and what a caller is told."""

import math

import msgspec


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """At most `count` in `period_s` seconds. group: which limit it belongs to, as in `read`."""

    group: str
    count: int
    period_s: int

    def window(self, at_s: float) -> int:
        """Return the number of the window that `at_s` is in."""
        return int(at_s // self.period_s)

    def carried(self, previous: int, at_s: float) -> int:
        """Return how much of the previous window's count still weighs at `at_s`, as if it had been spread evenly."""
        elapsed = (at_s % self.period_s) / self.period_s
        return math.ceil(min(previous, self.count) * (1 - elapsed))

    def granted(self, asked: int, total: int, previous: int, at_s: float) -> int:
        """Return how many of `asked` may be used, when `total` is the shared count with them already in it."""
        room = self.count - self.carried(previous, at_s) - (total - asked)
        return max(0, min(asked, room))

    def next_room_s(self, previous: int, at_s: float) -> float:
        """Return when a full window has room for one more: as the previous one fades, or after this one."""
        end_s = (self.window(at_s) + 1) * self.period_s
        if previous <= 0:
            return end_s + self.period_s / self.count
        return min(at_s + self.period_s / min(previous, self.count), float(end_s))


class Verdict(msgspec.Struct, frozen=True):
    """Whether it may happen now, and how the strictest of its rates stands.

    reset_s: until the window ends; retry_after_s: until there is room again, 0 where there is.
    """

    allowed: bool
    rate: Rate
    remaining: int
    reset_s: int
    retry_after_s: int = 0
