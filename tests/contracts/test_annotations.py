"""Annotations beyond the records' suite: found by their time, right before and after merges, one writer at a time."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest

from core.errors.exceptions import Conflict, NotFound
from core.infrastructure.central_hub import Hub, open_hub
from core.model.records import Annotation, Record, RecordKind
from core.ports.annotations import Annotations
from core.settings import Settings
from tests.engines import House, new_databases

KIND = RecordKind.ANNOTATIONS
T0_MS = 1_790_000_000_000


@pytest.fixture(scope="module")
def settings(house: House) -> Settings:
    return new_databases(house)


@pytest.fixture
async def hub(settings: Settings) -> AsyncIterator[Hub]:
    async with open_hub(settings, {"tick_records", "clickhouse"}) as hub:
        yield hub


@pytest.fixture
def keeper(hub: Hub) -> Annotations:
    found: Annotations = hub["tick_records"]
    return found


@pytest.fixture
def tenant() -> str:
    return f"t-{secrets.token_hex(6)}"


def mark(start: int = 0, stop: int | None = None, **changes: Any) -> Annotation:
    """Return an annotation; times in ms since T0_MS."""
    stop_ms = None if stop is None else T0_MS + stop
    fields: dict[str, Any] = {
        "symbol": "EURUSD",
        "start_ms": T0_MS + start,
        "stop_ms": stop_ms,
        "label": "news",
    }
    return Annotation(**{**fields, **changes})


async def create(keeper: Annotations, tenant: str, record_id: str, body: Annotation) -> Record[Any]:
    return await keeper.create(KIND, tenant, record_id, body, version=secrets.token_hex(16))


async def update(keeper: Annotations, tenant: str, record_id: str, body: Annotation) -> Record[Any]:
    version = secrets.token_hex(16)
    return await keeper.update(KIND, tenant, record_id, body, expected=None, version=version)


async def found(
    keeper: Annotations, tenant: str, start: int | None, stop: int | None, **changes: Any
) -> list[str]:
    asked: dict[str, Any] = {"symbol": "EURUSD", "after": None, "limit": 100, **changes}
    symbol = asked.pop("symbol")
    start_ms, stop_ms = (None if moment is None else T0_MS + moment for moment in (start, stop))
    records = await keeper.marks(tenant, symbol, start_ms=start_ms, stop_ms=stop_ms, **asked)
    return [record.id for record in records]


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        (None, None, ["lasts", "moment"]),
        (20, 29, ["lasts"]),
        (30, 30, ["lasts", "moment"]),
        (31, None, ["lasts"]),
        (40, None, ["lasts"]),
        (41, None, []),
        (None, 10, ["lasts"]),
        (None, 9, []),
    ],
)
async def test_a_stretch_finds_what_any_moment_of_it_lies_in(
    keeper: Annotations, tenant: str, start: int | None, stop: int | None, expected: list[str]
) -> None:
    await create(keeper, tenant, "moment", mark(30))
    await create(keeper, tenant, "lasts", mark(10, 40))
    await create(keeper, tenant, "other", mark(10, 40, symbol="USDJPY"))
    assert await found(keeper, tenant, start, stop) == expected


async def test_pages_of_a_stretch_are_everything_once_by_time(keeper: Annotations, tenant: str) -> None:
    for number, name in enumerate(["e", "d", "c", "b", "a"]):
        await create(keeper, tenant, name, mark(number // 2))
    seen: list[tuple[int, str]] = []
    while page := await keeper.marks(
        tenant, "EURUSD", start_ms=None, stop_ms=None, after=seen[-1] if seen else None, limit=2
    ):
        assert len(page) <= 2
        seen += [(record.body.start_ms, record.id) for record in page]
    assert seen == [(T0_MS, "d"), (T0_MS, "e"), (T0_MS + 1, "b"), (T0_MS + 1, "c"), (T0_MS + 2, "a")]


async def test_a_stretch_shows_the_tenant_its_own_only(keeper: Annotations, tenant: str) -> None:
    await create(keeper, tenant, "a", mark())
    assert await found(keeper, f"{tenant}x", None, None) == []


@pytest.mark.parametrize("merged", [False, True])
async def test_only_the_last_revision_counts_merged_or_not(
    hub: Hub, keeper: Annotations, tenant: str, merged: bool
) -> None:
    await create(keeper, tenant, "moved", mark())
    await update(keeper, tenant, "moved", mark(symbol="USDJPY", label="session"))
    await create(keeper, tenant, "gone", mark())
    await keeper.delete(KIND, tenant, "gone", expected=None)
    if merged:
        await hub["clickhouse"].ask(hub["clickhouse"].client.command("optimize table annotations final"))
    assert await found(keeper, tenant, None, None) == []
    assert await found(keeper, tenant, None, None, symbol="USDJPY") == ["moved"]
    for where, expected in (({"symbol": "EURUSD"}, []), ({"label": "session"}, ["moved"]), ({}, ["moved"])):
        records = await keeper.page(KIND, tenant, after=None, limit=9, where=where)
        assert [record.id for record in records] == expected


@pytest.mark.parametrize("merged", [False, True])
async def test_what_is_made_again_after_its_deletion_stays(
    hub: Hub, keeper: Annotations, tenant: str, merged: bool
) -> None:
    for _ in range(2):
        made = await create(keeper, tenant, "again", mark())
        await keeper.delete(KIND, tenant, "again", expected=made.version)
        if merged:
            await hub["clickhouse"].ask(hub["clickhouse"].client.command("optimize table annotations final"))
        with pytest.raises(NotFound):
            await keeper.read(KIND, tenant, "again")
    made = await create(keeper, tenant, "again", mark(7))
    assert await keeper.read(KIND, tenant, "again") == made


async def test_every_text_is_read_as_it_was_written(keeper: Annotations, tenant: str) -> None:
    text = "".join(chr(code) for code in range(1, 0x250)) + "\\N \\t '\"` {x} € 🙂 " + "漢" * 3_000
    made = await create(keeper, tenant, "text", mark(text=text, label="\\N'{tenant:String}"))
    assert made.body.text == text
    assert await keeper.read(KIND, tenant, "text") == made


async def test_processes_that_count_up_at_once_lose_no_step(settings: Settings, tenant: str) -> None:
    """Each step reads a record and replaces the version it read, so that a lost update would be a lost step."""

    async def step(keeper: Annotations) -> None:
        while True:
            record = await keeper.read(KIND, tenant, "count")
            body, version = mark(record.body.start_ms - T0_MS + 1), secrets.token_hex(16)
            try:
                await keeper.update(KIND, tenant, "count", body, expected=record.version, version=version)
            except Conflict:
                continue
            return

    async with open_hub(settings, {"tick_records"}) as one, open_hub(settings, {"tick_records"}) as two:
        keepers = [one["tick_records"], two["tick_records"]]
        await create(keepers[0], tenant, "count", mark(0))
        await asyncio.gather(*(step(keeper) for keeper in keepers for _ in range(4)))
        assert (await keepers[0].read(KIND, tenant, "count")).body.start_ms == T0_MS + 8
