"""Reads of ticks through a cache that cannot answer with less than what had been acknowledged when it was asked.

Nothing that is kept is believed: first the store is asked, by numbers that are cheap to get, whether anything an answer
follows from has been written since (workers/sights.py). So it does not matter what Redis loses, keeps too long or
brings back, who was killed between which two steps, or which writer could not reach it. docs/decisions/0021.
"""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from core.errors.exceptions import Unavailable
from core.market.freshness import marks_within, stands, untouched
from core.messages.jobs import Answer, BarQuery, SymbolQuery
from core.messages.message import Message
from core.model.freshness import Months, Reach, Stamp
from core.ports.cache import Cache, TickChanges
from core.ports.ticks import TickReader
from core.settings import CacheSettings
from core.telemetry import metrics
from workers.kept import Budget, Kept, LocalAnswers, read, written
from workers.sights import Sight, Sights
from workers.turns import Turns

PUTS_AT_ONCE_MAX: Final = 16
LAYOUT: Final = 1
"""Of what is kept in Redis: another layout has other keys."""


@dataclass(slots=True, kw_only=True)
class _Asked:
    """One question on its way. months: as they stood after it came; sight: once somebody had to look closer."""

    what: str
    key: str
    sources: Sequence[str]
    load: Callable[[], Awaitable[Answer]]
    reach: Callable[[Answer | None], Reach]
    months: Months = field(default_factory=dict)
    sight: Sight | None = None


class CachedReads:
    """Bars and symbols through the cache."""

    def __init__(
        self, reader: TickReader, cache: Cache, changes: TickChanges, settings: CacheSettings
    ) -> None:
        self._reader = reader
        self._cache = cache
        self._settings = settings
        self._look_s_max = settings.look_ms_max / 1_000
        self._sights = Sights(changes)
        self._local = LocalAnswers(settings.local_bytes_max)
        self._budget = Budget(settings.shared_bytes_max, settings.kept_s)
        self._direct: Turns[str, Answer] = Turns()
        self._flights: dict[str, asyncio.Task[Kept]] = {}
        self._puts: set[asyncio.Task[None]] = set()

    async def bars(self, query: BarQuery, sources: Sequence[str], tenant: str) -> Answer:
        """Raises: Unavailable, Invalid."""
        return await self._answer(
            _Asked(
                what="bars",
                key=_key("bars", tenant, query, sources),
                sources=sources,
                load=lambda: self._reader.bars(query, sources),
                reach=lambda answer: self._reader.reach(query, answer),
            )
        )

    async def symbols(self, query: SymbolQuery, sources: Sequence[str], tenant: str) -> Answer:
        """Raises: Unavailable."""
        return await self._answer(
            _Asked(
                what="symbols",
                key=_key("symbols", tenant, query, sources),
                sources=sources,
                load=lambda: self._reader.symbols(sources),
                reach=lambda _answer: Reach(),
            )
        )

    async def _answer(self, asked: _Asked) -> Answer:
        try:
            async with asyncio.timeout(self._look_s_max):
                asked.months = await self._sights.months()
        except (Unavailable, TimeoutError):
            # Nobody can say whether what is kept holds. What the store answers always does; one that is slow is not
            # asked the same by everybody at once.
            metrics.series(metrics.CACHE_ANSWERS, asked.what, "bypassed").inc()
            return await self._direct.ask(asked.key, asked.load)
        kept = self._local.get(asked.key)
        if kept is not None and (held := await self._held(asked, kept, "local")):
            return _given(asked, held, "local")
        return await self._joined(asked)

    async def _joined(self, asked: _Asked) -> Answer:
        """Share the load of somebody who asked before, if nothing was written between; else load."""
        flight = self._flights.get(asked.key)
        if flight is not None:
            kept = await asyncio.shield(flight)
            if held := await self._held(asked, kept, "joined"):
                return _given(asked, held, "joined")
        # Whoever comes from now on looked later than we did, and finds out whether ours is good enough.
        flight = asyncio.create_task(self._found(asked))
        self._flights[asked.key] = flight
        flight.add_done_callback(lambda done: self._landed(asked.key, done))
        return (await asyncio.shield(flight)).answer

    def _landed(self, key: str, flight: "asyncio.Task[Kept]") -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        if not flight.cancelled():
            flight.exception()  # its askers', who may have gone

    async def _found(self, asked: _Asked) -> Kept:
        try:
            text = await self._cache.get(asked.key)
        except Unavailable:
            text = None
        if text is not None:
            kept = read(text, 2 * self._settings.value_bytes_max)
            if kept is not None and (held := await self._held(asked, kept, "shared")):
                self._local.put(asked.key, held)
                _given(asked, held, "shared")
                return held
        return await self._loaded(asked)

    async def _loaded(self, asked: _Asked) -> Kept:
        # The stamp is older than the load: what is written meanwhile is behind it, whether or not we have read it.
        positions = self._sights.newest(asked.sources)
        answer = await asked.load()
        within = asked.reach(answer)
        stamp = Stamp(months=marks_within(asked.months, within), positions=positions)
        kept = Kept(stamp=stamp, reach=within, answer=answer)
        metrics.series(metrics.CACHE_ANSWERS, asked.what, "loaded").inc()
        if len(answer.body) <= self._settings.value_bytes_max:
            self._local.put(asked.key, kept)
            self._share(asked.key, kept)
        else:
            self._local.drop(asked.key)
            metrics.series(metrics.CACHE_UNSHARED, "size").inc()
        return kept

    async def _held(self, asked: _Asked, kept: Kept, where: str) -> Kept | None:
        """Return `kept` if the store would say the same now, stamped anew if that took a closer look."""
        if stands(kept.stamp, kept.reach, asked.months):
            return kept
        try:
            if asked.sight is None:
                async with asyncio.timeout(self._look_s_max):
                    asked.sight = await self._sights.rows(asked.sources)
        except (Unavailable, TimeoutError):
            asked.sight = Sight(months=asked.months, followed={})
        sight = asked.sight
        if not untouched(kept.stamp, kept.reach, asked.sources, sight.followed, sight.months):
            metrics.series(metrics.CACHE_REFUSED, asked.what, where).inc()
            return None
        positions = {source: sight.followed[source].newest for source in asked.sources}
        stamp = Stamp(months=marks_within(sight.months, kept.reach), positions=positions)
        held = msgspec.structs.replace(kept, stamp=stamp)
        self._local.put(asked.key, held)
        return held

    def _share(self, key: str, kept: Kept) -> None:
        if len(self._puts) >= PUTS_AT_ONCE_MAX:
            metrics.series(metrics.CACHE_UNSHARED, "busy").inc()
            return
        put = asyncio.create_task(self._put(key, kept))
        self._puts.add(put)
        put.add_done_callback(self._puts.discard)

    async def _put(self, key: str, kept: Kept) -> None:
        text = written(kept)
        if not self._budget.take(len(text), time.monotonic()):
            metrics.series(metrics.CACHE_UNSHARED, "budget").inc()
            return
        try:
            await self._cache.put(key, text, self._settings.kept_s)
        except Unavailable:
            metrics.series(metrics.CACHE_UNSHARED, "away").inc()


def _given(asked: _Asked, kept: Kept, outcome: str) -> Answer:
    metrics.series(metrics.CACHE_ANSWERS, asked.what, outcome).inc()
    if not kept.answer.rows:
        metrics.series(metrics.CACHE_EMPTY, asked.what).inc()
    return kept.answer


_encode: Final[Callable[[Any], bytes]] = msgspec.msgpack.Encoder().encode


def _key(what: str, tenant: str, query: Message, sources: Sequence[str]) -> str:
    question = hashlib.blake2b(_encode((query, list(sources))), digest_size=16).hexdigest()
    return f"{LAYOUT}:{what}:{tenant}:{question}"
