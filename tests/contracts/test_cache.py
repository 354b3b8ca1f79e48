"""Cached reads: kept while nothing they follow from has been written, loaded once however many ask, never stale."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from core.errors.exceptions import Invalid, Unavailable
from core.infrastructure.central_hub import Hub
from core.messages.jobs import Format, TimeBase
from core.model.freshness import MS_PER_DAY
from core.settings import Settings
from tests.caches import FIRST_DAY, Desk, Ticks, day_bars, make_block, open_store

DAY = FIRST_DAY


@pytest.fixture
async def hub(settings: Settings, queue_settings: Settings) -> AsyncIterator[Hub]:
    async with open_store(msgspec.structs.replace(settings, redis=queue_settings.redis)) as hub:
        yield hub


@pytest.fixture
def ticks(hub: Hub) -> Ticks:
    return Ticks(hub)


@pytest.fixture
def desk(hub: Hub) -> Desk:
    return Desk(hub)


async def followed(desk: Desk) -> None:
    """Have the source's newest row found."""
    desk.reads._sights.newest(["demo"])
    await desk.settled()


async def test_what_was_asked_before_is_not_loaded_again(desk: Desk, ticks: Ticks) -> None:
    await ticks.write("EURUSD", DAY, 3)
    for _ in range(3):
        assert await desk.bars(day_bars("EURUSD", DAY)) == {DAY: 3}
    assert desk.loads == 1


async def test_another_worker_finds_what_one_has_loaded(hub: Hub, desk: Desk, ticks: Ticks) -> None:
    await ticks.write("EURUSD", DAY, 3)
    await desk.bars(day_bars("EURUSD", DAY))
    await desk.settled()
    other = Desk(hub)
    assert await other.bars(day_bars("EURUSD", DAY)) == {DAY: 3}
    assert other.loads == 0


async def test_an_answer_without_rows_is_kept_until_there_are_some(desk: Desk, ticks: Ticks) -> None:
    assert await desk.bars(day_bars("EURUSD", DAY)) == {}
    assert await desk.bars(day_bars("EURUSD", DAY)) == {}
    assert desk.loads == 1
    await ticks.write("EURUSD", DAY)
    assert await desk.bars(day_bars("EURUSD", DAY)) == {DAY: 1}


async def test_what_is_acknowledged_is_in_the_next_answer(desk: Desk, ticks: Ticks) -> None:
    await followed(desk)
    for count in range(1, 4):
        await ticks.write("EURUSD", DAY)
        assert await desk.bars(day_bars("EURUSD", DAY)) == {DAY: count}
        assert await desk.symbols() == {"EURUSD": count}


@pytest.mark.parametrize(("symbol", "day"), [("GBPUSD", DAY), ("EURUSD", DAY + 1), ("EURUSD", DAY + 60)])
async def test_a_tick_of_another_symbol_or_day_leaves_an_answer_standing(
    desk: Desk, ticks: Ticks, symbol: str, day: int
) -> None:
    await ticks.write("EURUSD", DAY)
    await followed(desk)
    await desk.bars(day_bars("EURUSD", DAY))
    for _ in range(3):
        await ticks.write(symbol, day)
        assert await desk.bars(day_bars("EURUSD", DAY)) == {DAY: 1}
    assert desk.loads == 1


async def test_a_row_that_no_answer_shows_leaves_them_standing(hub: Hub, desk: Desk, ticks: Ticks) -> None:
    await ticks.write("EURUSD", DAY)
    await followed(desk)
    await desk.symbols()
    block = make_block(ticks, "EURUSD", DAY, 1, quarantine=1)
    for insert in hub["tick_store"].prepare(block):
        await hub["tick_store"].append(insert, 1)
    assert await desk.symbols() == {"EURUSD": 1}
    assert desk.loads == 1


async def test_a_full_page_stands_while_later_ticks_come(hub: Hub, desk: Desk, ticks: Ticks) -> None:
    for day in range(3):
        await ticks.write("EURUSD", DAY + day)
    await followed(desk)
    query = msgspec.structs.replace(day_bars("EURUSD", DAY), limit=2, stop_ms=None)
    page = await desk.reads.bars(query, ["demo"], "tenant")
    rest = msgspec.structs.replace(query, cursor=page.next_cursor)
    await ticks.write("EURUSD", DAY + 5)
    assert await desk.bars(query) == {DAY: 1, DAY + 1: 1}
    assert desk.loads == 1
    assert await desk.bars(rest) == {DAY + 2: 1, DAY + 5: 1}
    await ticks.write("EURUSD", DAY)
    assert await desk.bars(rest) == {DAY + 2: 1, DAY + 5: 1}
    assert desk.loads == 2, "what lies before the cursor is not of the page"
    assert await desk.bars(query) == {DAY: 2, DAY + 1: 1}


async def test_a_question_in_utc_sees_ticks_of_the_days_around_it(desk: Desk, ticks: Ticks) -> None:
    query = day_bars("EURUSD", DAY, clock=TimeBase.UTC)
    within = desk.reader.reach(query, None)
    assert within.start_ms == (DAY - 1) * MS_PER_DAY
    assert within.stop_ms == (DAY + 2) * MS_PER_DAY - 1


async def test_a_new_install_begins_where_the_answers_of_the_last_one_end(desk: Desk, ticks: Ticks) -> None:
    await ticks.write("EURUSD", DAY, 5)
    await followed(desk)
    await desk.bars(day_bars("EURUSD", DAY))
    ticks.install_anew()
    for count in range(6, 9):
        await ticks.write("EURUSD", DAY)
        assert await desk.bars(day_bars("EURUSD", DAY)) == {DAY: count}
        await desk.settled()
    loads = desk.loads
    await ticks.write("EURUSD", DAY + 1)
    assert await desk.bars(day_bars("EURUSD", DAY)) == {DAY: 8}
    assert desk.loads == loads, "the new install is followed as well"


async def test_a_month_that_was_dropped_is_gone_at_once(hub: Hub, desk: Desk, ticks: Ticks) -> None:
    await ticks.write("EURUSD", DAY)
    await ticks.write("EURUSD", DAY + 60)
    await followed(desk)
    assert await desk.bars(day_bars("EURUSD", DAY)) == {DAY: 1}
    await hub["clickhouse"].client.command("alter table ticks drop partition id '202410'")
    assert await desk.bars(day_bars("EURUSD", DAY)) == {}
    assert await desk.symbols() == {"EURUSD": 1}


async def test_merges_leave_answers_standing(hub: Hub, desk: Desk, ticks: Ticks) -> None:
    for _ in range(4):
        await ticks.write("EURUSD", DAY)
    await desk.symbols()
    await hub["clickhouse"].client.command("optimize table ticks final")
    assert await desk.symbols() == {"EURUSD": 4}
    assert desk.loads == 1


async def test_however_many_ask_at_once_it_is_loaded_once(desk: Desk, ticks: Ticks) -> None:
    await ticks.write("EURUSD", DAY, 3)
    answers = await asyncio.gather(*(desk.bars(day_bars("EURUSD", DAY)) for _ in range(100)))
    assert answers == [{DAY: 3}] * 100
    assert desk.loads == 1


async def test_whoever_knows_of_a_later_write_does_not_share_the_load_of_who_does_not(
    desk: Desk, ticks: Ticks
) -> None:
    await ticks.write("EURUSD", DAY)
    await followed(desk)
    desk.reader.gate.clear()
    first = asyncio.create_task(desk.bars(day_bars("EURUSD", DAY)))
    await desk.reader.read.wait()
    await ticks.write("EURUSD", DAY)
    second = asyncio.create_task(desk.bars(day_bars("EURUSD", DAY)))
    desk.reader.gate.set()
    assert await first == {DAY: 1}
    assert await second == {DAY: 2}
    assert await desk.bars(day_bars("EURUSD", DAY)) == {DAY: 2}


async def test_who_gives_up_does_not_take_the_load_from_the_others(desk: Desk, ticks: Ticks) -> None:
    await ticks.write("EURUSD", DAY)
    desk.reader.gate.clear()
    first = asyncio.create_task(desk.bars(day_bars("EURUSD", DAY)))
    second = asyncio.create_task(desk.bars(day_bars("EURUSD", DAY)))
    await desk.reader.read.wait()
    first.cancel()
    await asyncio.wait({first})
    desk.reader.gate.set()
    assert await second == {DAY: 1}
    assert desk.loads == 1


async def test_tenants_and_sources_share_nothing(hub: Hub, desk: Desk, ticks: Ticks) -> None:
    rival = Ticks(hub, "rival")
    await ticks.write("EURUSD", DAY)
    await rival.write("EURUSD", DAY, 2)
    query = day_bars("EURUSD", DAY)
    assert await desk.bars(query) == {DAY: 1}
    assert await desk.bars(query, "rival") == {DAY: 2}
    assert await desk.bars(query, "demo", "rival") == {DAY: 3}
    await desk.reads.bars(query, ["demo"], "somebody else")
    assert desk.loads == 4


async def test_every_format_is_kept_apart(desk: Desk, ticks: Ticks) -> None:
    await ticks.write("EURUSD", DAY)
    query = day_bars("EURUSD", DAY)
    for form in Format:
        asked = msgspec.structs.replace(query, format=form)
        bodies = {(await desk.reads.bars(asked, ["demo"], "t")).body for _ in range(2)}
        assert len(bodies) == 1
    assert desk.loads == len(Format)


async def test_a_refused_question_is_refused_again(desk: Desk) -> None:
    for _ in range(2):
        with pytest.raises(Invalid, match="cursor"):
            await desk.bars(day_bars("EURUSD", DAY, cursor="nonsense"))


async def test_what_is_too_large_is_answered_and_not_kept(hub: Hub, ticks: Ticks) -> None:
    desk = Desk(hub, value_bytes_max=100)
    await ticks.write("EURUSD", DAY)
    for _ in range(2):
        assert await desk.bars(day_bars("EURUSD", DAY)) == {DAY: 1}
    assert desk.loads == 2


async def test_this_process_keeps_no_more_than_it_may(hub: Hub, ticks: Ticks) -> None:
    desk = Desk(hub, local_bytes_max=10_000)
    for day in range(20):
        await desk.bars(day_bars("EURUSD", DAY + day))
    assert 0 < len(desk.reads._local) < 10


async def test_no_more_is_put_into_redis_than_may_be(hub: Hub, queue_valkey: object, ticks: Ticks) -> None:
    desk = Desk(hub, shared_bytes_max=1_000)
    for day in range(20):
        await desk.bars(day_bars("EURUSD", DAY + day))
    await desk.settled()
    keys = queue_valkey.keys("tickgate:cache:*")  # type: ignore[attr-defined]
    assert 0 < len(keys) < 10
    assert all(0 < queue_valkey.ttl(key) <= 3_600 for key in keys)  # type: ignore[attr-defined]


async def test_what_somebody_else_wrote_under_our_key_is_no_answer(
    hub: Hub, desk: Desk, ticks: Ticks, queue_valkey: object
) -> None:
    await ticks.write("EURUSD", DAY)
    await desk.bars(day_bars("EURUSD", DAY))
    await desk.settled()
    (key,) = queue_valkey.keys("tickgate:cache:*")  # type: ignore[attr-defined]
    for junk in (b"", b"p", b"pjunk", b"zjunk", b"p\x80", queue_valkey.get(key)[:-5]):  # type: ignore[attr-defined]
        queue_valkey.set(key, junk)  # type: ignore[attr-defined]
        assert await Desk(hub).bars(day_bars("EURUSD", DAY)) == {DAY: 1}


async def test_a_store_that_cannot_say_what_changed_is_read_itself(
    hub: Hub, desk: Desk, ticks: Ticks, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ticks.write("EURUSD", DAY)
    await desk.bars(day_bars("EURUSD", DAY))

    async def refuse() -> None:
        raise Unavailable("busy", code="STORE_UNAVAILABLE")

    monkeypatch.setattr(hub["tick_changes"], "months", refuse)
    assert await desk.bars(day_bars("EURUSD", DAY)) == {DAY: 1}
    assert desk.loads == 2
    await ticks.write("EURUSD", DAY)
    answers = await asyncio.gather(*(desk.bars(day_bars("EURUSD", DAY)) for _ in range(50)))
    assert answers == [{DAY: 2}] * 50
    assert desk.loads <= 4, "but not by everybody at once"
