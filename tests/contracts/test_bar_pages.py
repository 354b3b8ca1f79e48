"""Pages of a bar export on the real store: together they are exactly the bars that pages with cursors answer."""

import itertools
import json
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from core.adapters.clickhouse.bar_pages import ClickHouseBarPages
from core.adapters.clickhouse.client import ClickHouse, connect
from core.adapters.clickhouse.export_pages import FIRST_PAGE_ROWS, PAGE_ROWS
from core.adapters.clickhouse.reading import Reads
from core.adapters.clickhouse.tick_reader import ClickHouseTickReader
from core.errors.exceptions import Invalid
from core.market.mt5_bar_files import BarCsvFile
from core.messages.jobs import (
    BARS_MAX,
    BarExportQuery,
    BarPrice,
    BarQuery,
    ExportFormat,
    Format,
    Interval,
    TimeBase,
)
from core.settings import Settings
from tests.engines import House, new_databases
from tests.exports import generate
from tests.gateways import DAY_MS, insert_ticks, tick
from tests.mt5_bars import read_bars

SOURCES = ("demo", "demo2")
DIGITS = 5
GAPS_MS = (0, 0, 1, 250, 900, 900, 4_000, 61_000)
LONG_GAP_MS = 40 * 3_600_000
LONG_GAPS_MAX = 6
_number = itertools.count()


@pytest.fixture(scope="module")
def store_settings(house: House) -> Settings:
    return new_databases(house)


@pytest.fixture
async def reads(store_settings: Settings) -> AsyncIterator[Reads]:
    client = await connect(store_settings.clickhouse, store_settings.clickhouse.database)
    yield Reads(ClickHouse(client, 30), store_settings.clickhouse)
    await client.close()


async def exported(
    reads: Reads, query: BarExportQuery, sources: Sequence[str] = SOURCES
) -> list[list[dict[str, Any]]]:
    pages = ClickHouseBarPages(reads).pages(msgspec.structs.replace(query, format=ExportFormat.JSON), sources)
    return [[json.loads(line) for line in page.splitlines()] async for page in pages]


async def as_mt5(
    reads: Reads, query: BarExportQuery, sources: Sequence[str] = SOURCES
) -> list[dict[str, Any]]:
    file = BarCsvFile(daily=query.interval is Interval.D1, digits=DIGITS)
    pages = ClickHouseBarPages(reads).pages(msgspec.structs.replace(query, format=ExportFormat.MT5), sources)
    return read_bars(b"".join([*[file.add(page) async for page in pages], file.finish()]))


async def answered(reads: Reads, query: BarExportQuery) -> list[dict[str, Any]]:
    """Return what `/v1/bars` answers, from the first page to the last."""
    shared = {name: getattr(query, name) for name in BarQuery.__struct_fields__ if hasattr(query, name)}
    bars: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = BarQuery(**{**shared, "format": Format.JSON, "limit": BARS_MAX, "cursor": cursor})
        answer = await ClickHouseTickReader(reads).bars(page, SOURCES)
        bars += json.loads(answer.body)["items"]
        if (cursor := answer.next_cursor) is None:
            return bars


def some_ticks(symbol: str, seed: int, count: int) -> list[dict[str, Any]]:
    """Return ticks of two sources: crowded and sparse, some without a price, some on a clock that changes."""
    dice = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for source in SOURCES:
        time_msc, offset_s, long_gaps = DAY_MS, 7_200, LONG_GAPS_MAX
        for seq in range(1, count + 1):
            time_msc += dice.choice(GAPS_MS)
            if long_gaps and dice.random() < 0.003:
                time_msc, offset_s, long_gaps = time_msc + LONG_GAP_MS, 10_800, long_gaps - 1
            bid = dice.randrange(99_990, 100_010)
            row = tick(seq, time_msc, bid / 1e5, (bid + dice.randrange(-1, 30)) / 1e5, source=source)
            row |= {"symbol": symbol, "volume_real": dice.choice((0.0, 0.5, 2.0)), "utc_offset_s": offset_s}
            row |= dice.choice(
                ({},) * 20 + ({"bid": 0.0}, {"bid": 0.0, "last": 1.0}, {"quarantine": "CROSSED"})
            )
            rows.append(row if dice.random() > 0.01 else row | {"utc_offset_s": None})
    return rows


def in_points(bar: dict[str, Any]) -> dict[str, Any]:
    kept = {name: bar[name] for name in ("time_ms", "open", "high", "low", "close", "tick_volume", "volume")}
    return {**kept, "spread": round((bar["spread_min"] or 0) * 10**DIGITS)}


@examples(
    max_examples=12,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    seed=st.integers(0, 2**32),
    count=st.sampled_from((0, 1, 40, FIRST_PAGE_ROWS // 2, FIRST_PAGE_ROWS, 6_000)),
    interval=st.sampled_from(Interval),
    price=st.sampled_from([price for price in BarPrice if price is not BarPrice.LAST]),
    clock=st.sampled_from(TimeBase),
    bounds=st.sampled_from(((None, None), (DAY_MS + 100_500, None), (DAY_MS + 10_000, DAY_MS + 90_000_123))),
)
async def test_an_export_is_what_pages_answer_and_so_is_what_is_parsed_of_it_for_metatrader(
    reads: Reads,
    store_settings: Settings,
    *,
    seed: int,
    count: int,
    interval: Interval,
    price: BarPrice,
    clock: TimeBase,
    bounds: tuple[int | None, int | None],
) -> None:
    symbol = f"S{next(_number)}"
    if rows := some_ticks(symbol, seed, count):
        await insert_ticks(store_settings, rows)
    query = BarExportQuery(
        symbol=symbol, interval=interval, price=price, clock=clock, start_ms=bounds[0], stop_ms=bounds[1]
    )
    bars = await answered(reads, query)
    assert [bar for page in await exported(reads, query) for bar in page] == bars
    assert await as_mt5(reads, query) == [in_points(bar) for bar in bars]


@pytest.mark.parametrize("clock", TimeBase)
async def test_sparse_history_comes_whole_in_few_bounded_pages(
    reads: Reads, store_settings: Settings, clock: TimeBase
) -> None:
    symbol, step_ms, count = f"SPARSE{clock}", 40_000, 150_000
    await generate(store_settings, symbol, count, time_msc=f"{DAY_MS} + number * {step_ms}")
    query = BarExportQuery(symbol=symbol, interval=Interval.S1, clock=clock)
    pages = await exported(reads, query, ["demo"])
    offset_ms = 7_200_000 if clock is TimeBase.UTC else 0
    assert [bar["time_ms"] for page in pages for bar in page] == [
        DAY_MS - offset_ms + number * step_ms for number in range(count)
    ]
    assert max(map(len, pages)) <= PAGE_ROWS
    assert len(pages) <= 2 + count // PAGE_ROWS + 1


async def test_a_sparse_source_beside_a_dense_one_makes_no_page_large(
    reads: Reads, store_settings: Settings
) -> None:
    dense, sparse = 200_000, 4_000
    await generate(store_settings, "BESIDE", dense, time_msc=f"{DAY_MS} + number * 1000")
    columns = {"source": "'demo2'", "time_msc": f"{DAY_MS} + number * 300000"}
    await generate(store_settings, "BESIDE", sparse, **columns)
    pages = await exported(reads, BarExportQuery(symbol="BESIDE", interval=Interval.S1))
    keys = [(bar["time_ms"], bar["source"]) for page in pages for bar in page]
    assert len(keys) == dense + sparse
    assert keys == sorted(set(keys))
    assert max(map(len, pages)) <= PAGE_ROWS


async def test_long_bars_are_read_a_few_weeks_at_a_time(reads: Reads, store_settings: Settings) -> None:
    symbol, step_ms = "WEEKS", 30_000
    await generate(store_settings, symbol, 200_000, time_msc=f"{DAY_MS} + number * {step_ms}")
    pages = await exported(reads, BarExportQuery(symbol=symbol, interval=Interval.D1), ["demo"])
    bars = [bar for page in pages for bar in page]
    assert sum(bar["tick_volume"] for bar in bars) == 200_000
    assert [bar["time_ms"] for bar in bars] == sorted({bar["time_ms"] for bar in bars})
    assert len(pages) > 2


@pytest.mark.parametrize("interval", [Interval.S1, Interval.M1])
async def test_exactly_as_many_bars_as_possible_and_allowed_are_allowed(
    reads: Reads, store_settings: Settings, interval: Interval
) -> None:
    symbol = f"ALLOWED{interval}"
    # Two ticks a second for ten minutes, from the start of a minute.
    await generate(store_settings, symbol, 1_200, time_msc=f"{DAY_MS} + number * 500")
    query, allowed = BarExportQuery(symbol=symbol, interval=interval), 600 if interval is Interval.S1 else 10
    pages = ClickHouseBarPages(reads)
    assert await pages.sources(query, ["absent", "demo"], allowed) == ["demo"]
    with pytest.raises(Invalid, match="TOO_MANY_ROWS"):
        await pages.sources(query, ["absent", "demo"], allowed - 1)


async def test_fewer_ticks_than_allowed_are_allowed_however_far_apart(
    reads: Reads, store_settings: Settings
) -> None:
    await generate(store_settings, "APART", 2, time_msc=f"{DAY_MS} + number * 86400000")
    query = BarExportQuery(symbol="APART", interval=Interval.S1)
    assert await ClickHouseBarPages(reads).sources(query, ["demo"], 2) == ["demo"]
