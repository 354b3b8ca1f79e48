"""Looking at the store of ticks: one look for all who ask while the last one ran, never older than their questions."""

import asyncio
import time
from collections.abc import Awaitable, Collection, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

import structlog

from core.errors.exceptions import Unavailable
from core.market.freshness import Followed, shrunk
from core.model.freshness import Change, Months, Position
from core.ports.cache import TickChanges
from core.telemetry import metrics
from workers.turns import Turns

log = structlog.get_logger(__name__)

SOURCES_MAX: Final = 1_000
"""Sources a process follows; of more than these answers hold only while their months stand."""
BEGIN_PAUSE_S: Final = 10.0
"""A source whose newest row could not be found is not asked for again before."""
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What a look found. followed: the sources whose every row acknowledged before the look is known."""

    months: Months
    followed: Mapping[str, Followed]


class Sights:
    """Every look of this process."""

    def __init__(self, changes: TickChanges) -> None:
        self._changes = changes
        self._looks: Turns[str, Months] = Turns()
        self._searches: Turns[str, Sight] = Turns()
        self._wanted: set[str] = set()
        self._followed: dict[str, Followed] = {}
        self._months: Months = {}
        self._fallen_back = 0
        self._beginning: dict[str, asyncio.Task[None]] = {}
        self._failed_at_s: dict[str, float] = {}

    async def months(self) -> Months:
        """Return the marks as they stand now. Raises: Unavailable."""
        return await self._looks.ask("", self._look)

    async def rows(self, sources: Collection[str]) -> Sight:
        """Return the marks, and which symbols and days have changed, as it is now. Ask for `months` first.

        Raises: Unavailable.
        """
        self._wanted.update(sources)
        return await self._searches.ask("", self._search)

    def newest(self, sources: Collection[str]) -> dict[str, Position]:
        """Return up to where every row is known to be durable, of the sources that are followed; begin with others."""
        for source in sources:
            if source not in self._followed:
                self._begin(source)
        return {source: self._followed[source].newest for source in sources if source in self._followed}

    async def _look(self) -> Months:
        months = await _timed("months", self._changes.months())
        if shrunk(self._months, months):
            # Rows may come again under positions that are behind us.
            self._followed = {}
            self._fallen_back += 1
        self._months = months
        return months

    async def _search(self) -> Sight:
        wanted, self._wanted = self._wanted, set()
        # Whoever waits for this search has had marks of his own, and none are newer than these.
        months = self._months
        known = {source: self._followed[source] for source in wanted if source in self._followed}
        behind = {source: one.newest for source, one in known.items() if one.months != months}
        if behind:
            found: dict[str, list[Change]] = {source: [] for source in behind}
            for change in await _timed("rows", self._changes.since(behind)):
                found[change.source].append(change)
            for source, changes in found.items():
                if any(change.position[0] > behind[source][0] for change in changes):
                    # A new install: what it began with may not be all of the one before.
                    self._followed.pop(source, None)
                    del known[source]
                    continue
                known[source].add(changes)
                known[source].months = months
        for source in wanted:
            if source not in self._followed:
                self._begin(source)
        still = {source: one for source, one in known.items() if self._followed.get(source) is one}
        return Sight(months=months, followed=still)

    def _begin(self, source: str) -> None:
        """Find a source's newest row. That may take long, once; nobody waits for it."""
        too_soon = time.monotonic() < self._failed_at_s.get(source, -BEGIN_PAUSE_S) + BEGIN_PAUSE_S
        if source in self._beginning or too_soon or len(self._followed) >= SOURCES_MAX:
            return
        self._beginning[source] = asyncio.create_task(self._follow(source))

    async def _follow(self, source: str) -> None:
        fallen_back = self._fallen_back
        try:
            months = await self._changes.months()
            newest = await self._changes.newest(source)
        except Unavailable as e:
            self._failed_at_s[source] = time.monotonic()
            log.warning("cache.source_not_followed", source=source, error=str(e))
        else:
            self._failed_at_s.pop(source, None)
            if fallen_back == self._fallen_back:
                self._followed[source] = Followed(base=newest, newest=newest, months=months)
        finally:
            del self._beginning[source]


async def _timed(question: str, answer: Awaitable[Result]) -> Result:
    with metrics.CACHE_LOOK_SECONDS.labels(question).time():
        return await answer
