"""How a store's pool is used: what is under way beyond its size is waiting for a connection."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from core.telemetry import metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStanding:
    """Of one process. size: connections it may have at most."""

    in_use: int
    waiting: int
    size: int


class PoolUse:
    """Counts what is asked of one store."""

    def __init__(self, store: str, size: int) -> None:
        self._size = size
        self._under_way = 0
        self._in_use = metrics.POOL_IN_USE.labels(store)
        self._waiting = metrics.POOL_WAITING.labels(store)
        self._acquiring = metrics.POOL_ACQUIRE_SECONDS.labels(store)

    @property
    def standing(self) -> PoolStanding:
        in_use = min(self._under_way, self._size)
        return PoolStanding(in_use=in_use, waiting=self._under_way - in_use, size=self._size)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Count one from here to the end of the block, its waiting included."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    @contextmanager
    def acquiring(self) -> Iterator[None]:
        """Measure how long a connection is waited for."""
        began_s = time.perf_counter()
        try:
            yield
        finally:
            self._acquiring.observe(time.perf_counter() - began_s)

    def _count(self, change: int) -> None:
        self._under_way += change
        standing = self.standing
        self._in_use.set(standing.in_use)
        self._waiting.set(standing.waiting)
