"""The read-through cache: where answers are kept, and what the store of ticks says has changed since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from core.model.freshness import Change, Months, Position


class Cache(Protocol):
    """Bytes by key, shared by processes: may lose anything at any moment, and may answer with what was there before."""

    async def get(self, key: str) -> bytes | None:
        """Return what is kept. Raises: Unavailable."""

    async def put(self, key: str, value: bytes, ttl_s: int) -> None:
        """Keep `value` for at most `ttl_s`. Raises: Unavailable."""


class TickChanges(Protocol):
    """The store of ticks as the cache asks it: what is there, told in so few numbers that asking is cheap.

    What has been acknowledged before a question is asked is in its answer.
    """

    async def months(self) -> Months:
        """Return the mark of every month that has rows. Raises: Unavailable."""

    async def newest(self, source: str) -> Position:
        """Return the position of the newest row of `source`, (0, 0) when there is none. Raises: Unavailable."""

    async def since(self, positions: Mapping[str, Position]) -> Sequence[Change]:
        """Return what lies behind these positions, by source. Raises: Unavailable."""
