"""Pages of an export on the real store: together they are every tick once and in order, each of bounded size."""

import json
import random
from collections.abc import AsyncIterator

import pytest

from core.adapters.clickhouse.client import ClickHouse, connect
from core.adapters.clickhouse.export_pages import FIRST_PAGE_ROWS, SOURCE_ROWS_MIN
from core.adapters.clickhouse.reading import Reads
from core.adapters.clickhouse.tick_pages import ClickHouseTickPages
from core.errors.exceptions import Invalid
from core.messages.jobs import ExportQuery, Format
from core.settings import Settings
from tests.exports import generate
from tests.gateways import DAY_MS, insert_ticks, tick

WALK = ExportQuery(symbol="WALK", format=Format.JSON)
SOURCES = [f"s{number:02}" for number in range(60)]
"""More than one SELECT asks for."""


@pytest.fixture
async def pages(settings: Settings) -> AsyncIterator[ClickHouseTickPages]:
    client = await connect(settings.clickhouse, settings.clickhouse.database)
    yield ClickHouseTickPages(Reads(ClickHouse(client, 30), settings.clickhouse))
    await client.close()


async def lines(
    pages: ClickHouseTickPages, query: ExportQuery, sources: list[str]
) -> list[list[tuple[int, str, int, int]]]:
    return [
        [
            (row["time_msc"], row["source"], row["epoch"], row["seq"])
            for row in map(json.loads, page.splitlines())
        ]
        async for page in pages.pages(query, sources)
    ]


async def test_ticks_of_many_sources_with_many_a_millisecond_come_once_in_order_and_in_bounded_pages(
    pages: ClickHouseTickPages, settings: Settings
) -> None:
    dice = random.Random(11)
    rows = []
    for source in SOURCES:
        for epoch in (1, 2):
            time_msc = DAY_MS
            for seq in range(1, dice.choice((2, 400, 1_500))):
                time_msc += dice.choice((0, 0, 0, 0, 1, 40))
                rows.append(tick(seq, time_msc, 1.1, 1.2, source=source, epoch=epoch, symbol="WALK"))
    await insert_ticks(settings, rows)
    got = await lines(pages, WALK, SOURCES)
    assert len(got) > 1
    assert max(map(len, got)) <= max(FIRST_PAGE_ROWS, SOURCE_ROWS_MIN * len(SOURCES))
    assert [key for page in got for key in page] == sorted(
        (row["time_msc"], row["source"], row["epoch"], row["seq"]) for row in rows
    )


@pytest.mark.parametrize("rows", [FIRST_PAGE_ROWS - 1, FIRST_PAGE_ROWS, FIRST_PAGE_ROWS + 1])
async def test_a_page_that_is_just_full_loses_and_repeats_nothing(
    pages: ClickHouseTickPages, settings: Settings, rows: int
) -> None:
    await generate(settings, "WALK", rows)
    got = await lines(pages, WALK, ["demo"])
    assert [seq for page in got for *_, seq in page] == list(range(1, rows + 1))


async def test_exactly_as_many_ticks_as_allowed_are_allowed(
    pages: ClickHouseTickPages, settings: Settings
) -> None:
    await generate(settings, "WALK", 1_000)
    await generate(settings, "WALK", 500, seq="number + 1001", quarantine="'CROSSED'")
    assert await pages.sources(WALK, ["absent", "demo"], 1_000) == ["demo"]
    with pytest.raises(Invalid, match="TOO_MANY_ROWS"):
        await pages.sources(WALK, ["absent", "demo"], 999)
