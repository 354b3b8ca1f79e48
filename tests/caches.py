"""Cached reads on real engines, counted and held up where a test wants to, and a Redis that cannot be trusted."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import numpy as np

from core.errors.exceptions import Unavailable
from core.infrastructure.central_hub import Hub, open_hub
from core.messages.jobs import Answer, BarQuery, Interval, SymbolQuery
from core.model.freshness import MS_PER_DAY, Reach
from core.model.ticks import TICK_DTYPE, SymbolRun, TickBlock
from core.ports.cache import Cache
from core.ports.ticks import TickReader
from core.settings import CacheSettings, Settings
from workers.caching import CachedReads

NEEDS = frozenset({"tick_store", "tick_reader", "tick_changes", "cache", "retention"})
FIRST_DAY = 20_000
"""2024-10-04, so that the days of a test are in two months."""


class CountedReader:
    """Reads, counts, and hands an answer over only once its gate is open: what happens meanwhile happens after it."""

    def __init__(self, reader: TickReader) -> None:
        self._reader = reader
        self.loads: Counter[str] = Counter()
        self.read = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.delays = 0

    async def bars(self, query: BarQuery, sources: Sequence[str]) -> Answer:
        self.loads["bars"] += 1
        return await self._held(await self._reader.bars(query, sources), sources)

    async def symbols(self, sources: Sequence[str]) -> Answer:
        self.loads["symbols"] += 1
        return await self._held(await self._reader.symbols(sources), sources)

    def reach(self, query: BarQuery, answer: Answer | None) -> Reach:
        return self._reader.reach(query, answer)

    async def _held(self, answer: Answer, sources: Sequence[str]) -> Answer:
        self.read.set()
        for _ in range(self.delays):
            await self._reader.last_quotes(sources, ["NOBODY"])  # as long as a question takes
        await self.gate.wait()
        return answer


class FickleCache:
    """A Redis that may lose what it was given, bring back anything it ever had, or not answer at all."""

    def __init__(self, cache: Cache, seed: int) -> None:
        self._cache = cache
        self._dice = random.Random(seed)
        self._ever: dict[str, list[bytes]] = defaultdict(list)

    async def get(self, key: str) -> bytes | None:
        found = await self._cache.get(key)
        match self._dice.randrange(5):
            case 0:
                raise Unavailable("away", code="CACHE_AWAY")
            case 1:
                return None
            case 2 | 3 if self._ever[key]:
                return self._dice.choice(self._ever[key])
        return found

    async def put(self, key: str, value: bytes, ttl_s: int) -> None:
        self._ever[key].append(value)
        if self._dice.randrange(4):
            await self._cache.put(key, value, ttl_s)


class Ticks:
    """The one writer of a source, as the bridge is: it knows what has been acknowledged."""

    def __init__(self, hub: Hub, source: str = "demo") -> None:
        self._store = hub["tick_store"]
        self.source = source
        self.epoch, self.seq = 1, 0
        self.begun: Counter[tuple[str, int]] = Counter()
        self.acknowledged: Counter[tuple[str, int]] = Counter()

    async def write(self, symbol: str, day: int, count: int = 1) -> None:
        self.begun[symbol, day] += count
        block = make_block(self, symbol, day, count)
        self.seq += count
        for insert in self._store.prepare(block):
            await self._store.append(insert, 1)
        self.acknowledged[symbol, day] += count

    def install_anew(self) -> None:
        self.epoch, self.seq = self.epoch + 1, 0


def make_block(ticks: Ticks, symbol: str, day: int, count: int, quarantine: int = 0) -> TickBlock:
    rows = np.zeros(count, dtype=TICK_DTYPE)
    rows["time_msc"] = day * MS_PER_DAY + (ticks.seq * 7_919 + np.arange(count)) % MS_PER_DAY
    rows["time"] = rows["time_msc"] // 1_000
    rows["bid"], rows["ask"] = 1.1, 1.2
    return TickBlock(
        source=ticks.source,
        epoch=ticks.epoch,
        first_seq=ticks.seq + 1,
        rows=rows,
        runs=(SymbolRun(symbol=symbol, count=count),),
        quarantine=np.full(count, quarantine, dtype=np.uint8),
        backfill=np.zeros(count, dtype=np.uint8),
        utc_offset_s=np.zeros(count, dtype=np.int32),
        captured_at_ms=np.zeros(count, dtype=np.int64),
    )


def day_bars(symbol: str, day: int, days: int = 1, **changes: Any) -> BarQuery:
    query = BarQuery(
        symbol=symbol,
        interval=Interval.D1,
        start_ms=day * MS_PER_DAY,
        stop_ms=(day + days) * MS_PER_DAY - 1,
    )
    return msgspec.structs.replace(query, **changes)


def ticks_in(answer: Answer) -> dict[int, int]:
    """Return how many ticks an answer of bars counts, by day."""
    found: Counter[int] = Counter()
    for bar in msgspec.json.decode(answer.body)["items"]:
        found[bar["time_ms"] // MS_PER_DAY] += bar["tick_volume"]
    return found


ALL_SYMBOLS = SymbolQuery()


class Desk:
    """A worker's cached reads, of one tenant with one source or more."""

    def __init__(self, hub: Hub, cache: Cache | None = None, **settings: Any) -> None:
        self.reader = CountedReader(hub["tick_reader"])
        limits = CacheSettings(look_ms_max=10_000, **settings)
        self.reads = CachedReads(self.reader, cache or hub["cache"], hub["tick_changes"], limits)

    @property
    def loads(self) -> int:
        return self.reader.loads.total()

    async def bars(self, query: BarQuery, *sources: str) -> dict[int, int]:
        return ticks_in(await self.reads.bars(query, sources or ("demo",), "tenant"))

    async def symbols(self, *sources: str) -> dict[str, int]:
        answer = await self.reads.symbols(ALL_SYMBOLS, sources or ("demo",), "tenant")
        found: Counter[str] = Counter()
        for row in msgspec.json.decode(answer.body)["items"]:
            found[row["symbol"]] += row["ticks"]
        return found

    async def settled(self) -> None:
        """Wait until what is under way in the background has ended."""
        while pending := [*self.reads._puts, *self.reads._sights._beginning.values()]:
            await asyncio.wait(pending)


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[Hub]:
    async with open_hub(settings, NEEDS) as hub:
        yield hub
