"""The store of ticks: what is put in is what is there, exactly, and the store knows how far it has got."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from core.adapters.clickhouse import native
from core.errors.exceptions import Misconfigured, UnknownOutcome
from core.infrastructure.central_hub import Hub, open_hub
from core.market.checksum import checksum
from core.market.validation import quarantine_reasons
from core.model.ticks import TICK_DTYPE, UTC_OFFSET_UNKNOWN, Quarantine, SymbolRun, Tally, TickBlock
from core.ports.ticks import TickInsert, TickStore
from core.settings import Settings

NOW_MS = 1_714_600_000_000
DAY_MS = 86_400_000


@pytest.fixture
async def hub(settings: Settings) -> AsyncIterator[Hub]:
    async with open_hub(settings, {"tick_store", "certifier", "sources"}) as hub:
        yield hub


def make_block(
    count: int, *, first_seq: int = 1, source: str = "demo", start_msc: int = 1_714_557_600_000
) -> TickBlock:
    rng = np.random.default_rng(first_seq)
    rows = np.zeros(count, dtype=TICK_DTYPE)
    rows["time_msc"] = start_msc + np.arange(count) // 3
    rows["time"] = rows["time_msc"] // 1_000
    rows["bid"] = np.round(1.07 + rng.normal(0, 1e-3, count), 5)
    rows["ask"] = np.round(rows["bid"] + 1e-4, 5)
    rows["flags"] = 1_080
    rows["volume"] = np.arange(count)
    rows["volume_real"] = rng.normal(5, 1, count) ** 2
    half = count // 2
    runs = (SymbolRun(symbol="EURUSD", count=half), SymbolRun(symbol="WIN$N", count=count - half))
    return TickBlock(
        source=source,
        epoch=1,
        first_seq=first_seq,
        rows=rows,
        runs=tuple(run for run in runs if run.count),
        quarantine=quarantine_reasons(rows, NOW_MS),
        backfill=(np.arange(count) % 2).astype(np.uint8),
        utc_offset_s=np.where(np.arange(count) % 5, 10_800, UTC_OFFSET_UNKNOWN).astype(np.int32),
        captured_at_ms=np.full(count, NOW_MS, dtype=np.int64),
    )


async def put(store: TickStore, block: TickBlock) -> None:
    for insert in store.prepare(block):
        await store.append(insert, 1)


async def stored(hub: Hub, columns: str) -> list[tuple]:
    result = await hub["clickhouse"].client.query(f"select {columns} from ticks order by seq")
    return [tuple(row) for row in result.result_rows]


async def test_every_field_comes_back_bit_for_bit(hub: Hub) -> None:
    block = make_block(999)
    await put(hub["tick_store"], block)
    found = await stored(
        hub,
        "source, epoch, seq, symbol, time, time_msc, bid, ask, last, volume, volume_real, flags,"
        " quarantine, backfill, utc_offset_s, captured_at_ms",
    )
    symbols = [run.symbol for run in block.runs for _ in range(run.count)]
    expected = [
        (
            "demo",
            1,
            seq,
            symbols[i],
            *(
                block.rows[i][name].item()
                for name in ("time", "time_msc", "bid", "ask", "last", "volume", "volume_real", "flags")
            ),
            "OK",
            i % 2,
            10_800 if i % 5 else None,
            NOW_MS,
        )
        for i, seq in enumerate(range(1, 1_000))
    ]
    assert found == expected


async def test_durable_seq_is_the_highest_stored_whatever_floor_is_given(hub: Hub) -> None:
    store = hub["tick_store"]
    assert await store.durable_seq("demo", 1) == 0
    await put(store, make_block(100))
    await put(store, make_block(50, first_seq=101))
    await put(store, make_block(500, source="other"))
    assert [await store.durable_seq("demo", 1, floor) for floor in (0, 1, 149, 150, 151, 9_999)] == [150] * 6
    assert await store.durable_seq("demo", 2) == 0


async def test_a_block_over_months_is_split_in_seq_order(hub: Hub) -> None:
    block = make_block(10)
    block.rows["time_msc"] = [m * 20 * DAY_MS + 1_714_557_600_000 for m in (0, 0, 1, 1, 2, 0, 0, 3, 3, 3)]
    pieces = hub["tick_store"].prepare(block)
    assert [(piece.block.first_seq, len(piece.block)) for piece in pieces] == [(1, 4), (5, 1), (6, 2), (8, 3)]
    for piece in pieces:
        await hub["tick_store"].append(piece, 1)
    assert [row[0] for row in await stored(hub, "seq")] == list(range(1, 11))


async def test_absurd_times_are_stored_too(hub: Hub) -> None:
    block = make_block(6)
    block.rows["time_msc"] = [-(2**62), -1, 0, 2**62, 1_714_557_600_000, 10_413_792_000_001]
    block.quarantine[:] = quarantine_reasons(block.rows, NOW_MS)
    pieces = hub["tick_store"].prepare(block)
    assert [len(piece.block) for piece in pieces] == [2, 1, 1, 1, 1]
    for piece in pieces:
        await hub["tick_store"].append(piece, 1)
    rows = await stored(hub, "time_msc, quarantine")
    assert [row[0] for row in rows] == block.rows["time_msc"].tolist()
    assert [row[1] for row in rows] == ["ABSURD_TIME"] * 4 + ["OK", "ABSURD_TIME"]


async def test_a_piece_over_two_partitions_is_refused_whole(hub: Hub) -> None:
    block = make_block(4)
    block.rows["time_msc"][2:] += 40 * DAY_MS
    insert = TickInsert(block=block, body=tuple(native.encode(block)))
    with pytest.raises(UnknownOutcome):
        await hub["tick_store"].append(insert, 1)
    assert await stored(hub, "seq") == []


async def test_not_finite_values_survive_with_their_reason(hub: Hub) -> None:
    block = make_block(4)
    block.rows["bid"] = [np.nan, np.inf, -1.0, 9.0]
    block.quarantine[:] = quarantine_reasons(block.rows, NOW_MS)
    await put(hub["tick_store"], block)
    rows = await stored(hub, "reinterpretAsUInt64(bid), quarantine")
    assert [row[0] for row in rows] == block.rows["bid"].copy().view(np.uint64).tolist()
    assert [row[1] for row in rows] == ["NOT_FINITE", "NOT_FINITE", "NEGATIVE", "CROSSED"]


async def test_the_store_and_the_connector_compute_one_checksum(hub: Hub) -> None:
    block = make_block(1_000)
    await put(hub["tick_store"], block)
    half = len(block) // 2
    day = int(block.rows["time_msc"][0] // DAY_MS)
    tally = Tally(
        symbol="EURUSD", day=day, rows=400, first_seq=1, last_seq=400, checksum=checksum(block.rows[:400], 1)
    )
    other = Tally(
        symbol="WIN$N",
        day=day,
        rows=half,
        first_seq=half + 1,
        last_seq=1_000,
        checksum=checksum(block.rows[half:], half + 1),
    )
    for expected in (tally, other):
        found = await hub["certifier"].tally("demo", 1, expected)
        assert (found.rows, found.checksum) == (expected.rows, expected.checksum)


async def test_cursors_count_the_newest_millisecond(hub: Hub) -> None:
    block = make_block(10)
    block.rows["time_msc"][:5] = np.array([100, 200, 300, 300, 300]) + 1_714_557_600_000
    await put(hub["tick_store"], block)
    cursors = await hub["tick_store"].cursors("demo")
    assert (cursors["EURUSD"].time_msc, cursors["EURUSD"].count) == (1_714_557_600_300, 3)


async def test_drain_returns_when_nothing_runs(hub: Hub) -> None:
    await put(hub["tick_store"], make_block(10))
    async with asyncio.timeout(5):
        await hub["tick_store"].drain("demo")


async def test_after_a_drain_no_insert_commits_any_more(hub: Hub) -> None:
    store = hub["tick_store"]
    inserting = [
        asyncio.create_task(put(store, make_block(200_000, first_seq=1 + 200_000 * i))) for i in range(3)
    ]
    await asyncio.sleep(0.05)
    for task in inserting:
        task.cancel()
    await asyncio.gather(*inserting, return_exceptions=True)
    await store.drain("demo")
    rows = await hub["clickhouse"].client.query("select count() from ticks")
    before = rows.result_rows[0][0]
    assert before % 200_000 == 0
    await asyncio.sleep(0.5)
    rows = await hub["clickhouse"].client.query("select count() from ticks")
    assert rows.result_rows[0][0] == before


async def test_a_table_that_would_not_be_durable_is_refused(settings: Settings) -> None:
    async with open_hub(settings, {"clickhouse"}) as hub:
        await hub["clickhouse"].client.command("alter table ticks modify setting fsync_after_insert = 0")
    with pytest.raises(Misconfigured, match="fsync_after_insert"):
        async with open_hub(settings, {"tick_store"}):
            pass


def test_reasons_are_given_in_their_order() -> None:
    rows = make_block(8).rows
    rows["bid"][:6] = [np.nan, -1.0, 5.0, 1.0, 1.0, 0.0]
    rows["ask"][5] = rows["last"][5] = 0.0
    rows["time_msc"][3] = 5
    rows["time"][4] = 7
    names = [Quarantine(int(reason)).name for reason in quarantine_reasons(rows, NOW_MS)]
    assert names == [
        "NOT_FINITE",
        "NEGATIVE",
        "CROSSED",
        "ABSURD_TIME",
        "TIME_MISMATCH",
        "NO_PRICE",
        "OK",
        "OK",
    ]
