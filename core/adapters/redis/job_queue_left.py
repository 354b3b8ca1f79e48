"""Jobs that outlasted their callers here: how many of a tenant's are under way, and how much of their answers is kept.

A caller that waits holds a connection, and connections are bounded. One that does not wait costs us memory in Redis:
a job, then an answer that nobody may ever fetch. So each tenant has a bound on both, for each gateway process.
"""

import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from core.errors.exceptions import RateLimited

UNDER_WAY_MAX: Final = 1_000
UNDER_WAY_S_MAX: Final = 120.0
"""Longer than any queue lets a job wait and run, but for long ones, which are few; then it is counted no more."""
KEPT_BYTES_MAX: Final = 256 * 1024**2
KEPT_S: Final = 600.0
"""Longer than answers to reads are kept."""


@dataclass(slots=True)
class _Kept:
    job_id: str
    size_bytes: int
    since_s: float


@dataclass(slots=True)
class LeftJobs:
    """Counts them. Nothing here waits."""

    kept_bytes_max: int = KEPT_BYTES_MAX
    under_way_max: int = UNDER_WAY_MAX
    _under_way: dict[str, tuple[str, float]] = field(default_factory=dict)
    _counts: Counter[str] = field(default_factory=Counter)
    _ended: dict[str, str] = field(default_factory=dict)
    _kept: dict[str, deque[_Kept]] = field(default_factory=dict)

    def require_room(self, tenant: str) -> None:
        """Raise RateLimited while the tenant has too many of them under way."""
        if self._counts and self._counts[tenant] >= self.under_way_max:
            raise RateLimited(
                "too many of your jobs are under way; let some of them end", code="TOO_MANY_JOBS"
            )

    def leave(self, job_id: str, tenant: str) -> None:
        """Its caller has gone."""
        self._under_way[job_id] = (tenant, time.monotonic())
        self._counts[tenant] += 1

    def end(self, job_id: str) -> None:
        """It has ended; of a job that nobody left behind this is nothing."""
        if (left := self._under_way.pop(job_id, None)) is not None:
            self._ended[job_id] = left[0]
            self._uncount(left[0])

    def take_ended(self) -> dict[str, str]:
        """Return the tenants of jobs that have ended since the last time, by job id, and forget the over-aged."""
        now_s = time.monotonic()
        while self._under_way:
            job_id, (tenant, since_s) = next(iter(self._under_way.items()))
            if now_s - since_s < UNDER_WAY_S_MAX:
                break
            del self._under_way[job_id]
            self._uncount(tenant)
        ended, self._ended = self._ended, {}
        return ended

    def keep(self, tenant: str, sizes_bytes: Sequence[tuple[str, int]]) -> list[str]:
        """Note what is kept of the tenant's answers and return the oldest ones that are too much."""
        now_s = time.monotonic()
        kept = self._kept.setdefault(tenant, deque())
        kept.extend(_Kept(job_id, size_bytes, now_s) for job_id, size_bytes in sizes_bytes)
        while kept and now_s - kept[0].since_s > KEPT_S:
            kept.popleft()
        surplus_bytes = sum(one.size_bytes for one in kept) - self.kept_bytes_max
        dropped: list[str] = []
        while kept and surplus_bytes > 0:
            one = kept.popleft()
            surplus_bytes -= one.size_bytes
            dropped.append(one.job_id)
        if not kept:
            del self._kept[tenant]
        return dropped

    def _uncount(self, tenant: str) -> None:
        self._counts[tenant] -= 1
        if not self._counts[tenant]:
            del self._counts[tenant]
