"""Never less than what was acknowledged before the question: any order of reads and writes, any Redis, any restart.

Readers of two workers and writers of two sources run at once. Every read notes what had been acknowledged when it
asked; the answer may hold more, which was written meanwhile, but never less and never what was not written.
"""

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import FlakyFailure

from core.infrastructure.central_hub import Hub
from core.settings import Settings
from tests.caches import FIRST_DAY, Desk, FickleCache, Ticks, day_bars, open_store
from tests.engines import House, new_databases
from workers import caching
from workers.caching import CachedReads

SYMBOLS = ("EURUSD", "GBPUSD")
SOURCES = ("demo", "other")
DAYS = (FIRST_DAY, FIRST_DAY + 1, FIRST_DAY + 40)

symbols = st.sampled_from(SYMBOLS)
days = st.sampled_from(DAYS)
write = st.tuples(st.just("write"), symbols, days, st.integers(1, 3))
install = st.tuples(st.just("install"))
read_bars = st.tuples(st.just("bars"), st.integers(0, 1), symbols, days, st.sampled_from((1, 2, 45)))
read_symbols = st.tuples(st.just("symbols"), st.integers(0, 1))
restart = st.tuples(st.just("restart"), st.integers(0, 1))
written = st.lists(st.one_of(write, write, write, install), max_size=6)
asked = st.lists(st.one_of(read_bars, read_bars, read_bars, read_symbols, restart), min_size=4, max_size=14)


@pytest.fixture(scope="module")
def store_settings(house: House) -> Settings:
    return new_databases(house)


class Play:
    """One example: its writers, its workers, and what each read must find."""

    def __init__(self, hub: Hub, seed: int, delays: tuple[int, int]) -> None:
        self.hub = hub
        # Sources of its own: what other examples wrote is not in the way.
        self.ticks = [Ticks(hub, f"{source}{next(_number)}") for source in SOURCES]
        self.sources = [ticks.source for ticks in self.ticks]
        self.cache = FickleCache(hub["cache"], seed)
        self.delays = delays
        self.desks = [self.desk(number) for number in range(2)]

    def desk(self, number: int) -> Desk:
        desk = Desk(self.hub, self.cache)
        desk.reader.delays = self.delays[number]
        return desk

    def counted(self, attribute: str) -> Counter[tuple[str, int]]:
        return sum((getattr(ticks, attribute) for ticks in self.ticks), Counter())

    async def write(self, ticks: Ticks, deeds: list[Any]) -> None:
        for deed, *details in deeds:
            if deed == "write":
                await ticks.write(*details)
            else:
                ticks.install_anew()

    async def read(self, questions: list[Any]) -> None:
        for question, number, *details in questions:
            if question == "restart":
                self.desks[number] = self.desk(number)
                continue
            before = self.counted("acknowledged")
            if question == "bars":
                symbol, day, count = details
                query = day_bars(symbol, day, count)
                found = await self.desks[number].bars(query, *self.sources)
                at_least = {d: n for (s, d), n in before.items() if s == symbol and day <= d < day + count}
                at_most = {d: n for (s, d), n in self.counted("begun").items() if s == symbol}
            else:
                found = await self.desks[number].symbols(*self.sources)
                at_least, at_most = by_symbol(before), by_symbol(self.counted("begun"))
            assert all(found.get(key, 0) >= count for key, count in at_least.items()), (question, details)
            assert all(count <= at_most.get(key, 0) for key, count in found.items()), (question, details)


def by_symbol(counts: Counter[tuple[str, int]]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for (symbol, _), count in counts.items():
        found[symbol] += count
    return found


_number = iter(range(1_000_000))


async def play(store: Settings, writers: Any, readers: Any, seed: int, delays: tuple[int, int]) -> None:
    async with open_store(store) as hub:
        example = Play(hub, seed, delays)
        writing = [example.write(*pair) for pair in zip(example.ticks, writers, strict=True)]
        reading = [example.read(questions) for questions in readers]
        for outcome in await asyncio.gather(*writing, *reading, return_exceptions=True):
            if outcome is not None:
                raise outcome
        # And once all is quiet, each answer is exactly what was written.
        for desk in example.desks:
            for symbol in SYMBOLS:
                found = await desk.bars(day_bars(symbol, DAYS[0], 45), *example.sources)
                begun = {d: n for (s, d), n in example.counted("begun").items() if s == symbol}
                assert found == begun
            await desk.settled()


def examples(count: int) -> Any:
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )


EXAMPLES = given(
    writers=st.tuples(written, written),
    readers=st.lists(asked, min_size=2, max_size=4),
    seed=st.integers(0, 2**32),
    delays=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)


@examples(30)
@EXAMPLES
def test_no_answer_lacks_what_was_acknowledged_before_its_question(
    store_settings: Settings, writers: Any, readers: Any, seed: int, delays: tuple[int, int]
) -> None:
    asyncio.run(play(store_settings, writers, readers, seed, delays))


async def stamped_late(self: CachedReads, asked: Any) -> Any:
    """Load first, then look, so that a write in between seems to be in the answer."""
    answer = await asked.load()
    asked.months = await self._sights.months()
    asked.load = lambda: asyncio.sleep(0, answer)
    return await LOADED(self, asked)


async def any_flight(self: CachedReads, asked: Any, kept: Any, where: str) -> Any:
    """Share every load that is under way, whenever it began."""
    return kept if where == "joined" else await HELD(self, asked, kept, where)


def no_rows_touch(stamp: Any, reach: Any, sources: Any, followed: Any, months: Any) -> bool:
    """Believe in any answer as long as its sources could be looked at."""
    return all(source in followed for source in sources)


ROUNDS_MAX = 4
LOADED, HELD = CachedReads._loaded, CachedReads._held
BROKEN: dict[str, tuple[Any, str, Any]] = {
    "kept answers are believed": (caching, "stands", lambda *_: True),
    "rows behind the stamp are overlooked": (caching, "untouched", no_rows_touch),
    "the stamp is taken after the load": (CachedReads, "_loaded", stamped_late),
    "a load that has begun is shared": (CachedReads, "_held", any_flight),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_cache_that_is_broken_on_purpose_is_found_out(
    store_settings: Settings, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @examples(40)
    @EXAMPLES
    def run(writers: Any, readers: Any, seed: int, delays: tuple[int, int]) -> None:
        asyncio.run(play(store_settings, writers, readers, seed, delays))

    monkeypatch.setattr(*BROKEN[broken])
    # Run a second time it may go well: whether it is found out is a matter of time as well.
    for _ in range(ROUNDS_MAX):
        try:
            run()
        except (AssertionError, FlakyFailure):
            return
    pytest.fail(f"{broken}, and nobody noticed")
