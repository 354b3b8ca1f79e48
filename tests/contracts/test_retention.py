"""Retention drops whole, quiet months, and neither the resume query nor a certificate mistakes that for a loss."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from core.adapters.clickhouse.retention import ClickHouseRetention
from core.infrastructure.central_hub import Hub, open_hub
from core.infrastructure.provisioning import NewSource, provision
from core.market.checksum import checksum
from core.market.completeness import certify
from core.market.retention import MS_PER_DAY, enforce
from core.model.ticks import Tally
from core.ports.ticks import Dropped
from core.settings import Secret, Settings
from tests.contracts.test_tick_store import make_block, put

JUNE_MS = 1_717_200_000_000
MAY_MS = 1_714_557_600_000


@pytest.fixture
async def hub(settings: Settings) -> AsyncIterator[Hub]:
    await provision(settings, [], [NewSource(name="demo", token=Secret("t"), tenant="t")])
    async with open_hub(settings, {"tick_store", "certifier", "sources", "retention"}) as hub:
        await hub["sources"].epoch_of("demo", "install-1")
        await put(hub["tick_store"], make_block(100, start_msc=MAY_MS))
        june = make_block(100, first_seq=101, start_msc=JUNE_MS)
        await put(hub["tick_store"], june)
        # Late history of May behind June's first ticks: what is dropped need not be a prefix.
        await put(hub["tick_store"], make_block(50, first_seq=201, start_msc=MAY_MS + 3_600_000))
        await put(hub["tick_store"], make_block(50, first_seq=251, start_msc=JUNE_MS + 3_600_000))
        tally = Tally(
            symbol="EURUSD",
            day=JUNE_MS // MS_PER_DAY,
            rows=50,
            first_seq=101,
            last_seq=150,
            checksum=checksum(june.rows[:50], 101),
        )
        await hub["sources"].record_tallies("demo", 1, [tally])
        yield hub


async def problems(hub: Hub) -> list[str]:
    certificates = await certify(hub["certifier"], hub["sources"], ["demo"])
    return [problem for certificate in certificates for problem in certificate.problems]


async def test_a_month_that_ended_before_the_policy_goes(hub: Hub) -> None:
    assert await problems(hub) == []
    impatient = ClickHouseRetention(hub["clickhouse"], quiet_s_min=-5)
    end_of_may_ms = JUNE_MS // MS_PER_DAY * MS_PER_DAY
    assert await enforce(impatient, hub["sources"], 30, end_of_may_ms + 29 * MS_PER_DAY) == []
    assert await enforce(impatient, hub["sources"], 0, end_of_may_ms + 900 * MS_PER_DAY) == []
    assert await enforce(impatient, hub["sources"], 30, end_of_may_ms + 31 * MS_PER_DAY) == ["202405"]
    dropped = Dropped(rows=150, last_seq=250, months=frozenset({"202405"}))
    assert await hub["sources"].epochs("demo") == {1: dropped}
    assert await hub["tick_store"].durable_seq("demo", 1) == 300
    assert await problems(hub) == []
    rows = (await hub["clickhouse"].client.query("select count() from ticks")).result_rows
    assert rows == [(150,)]


async def test_a_month_that_is_being_written_to_stays(hub: Hub) -> None:
    assert await enforce(hub["retention"], hub["sources"], 1, JUNE_MS + 900 * MS_PER_DAY) == []


async def test_a_loss_above_the_floor_is_still_found(hub: Hub) -> None:
    impatient = ClickHouseRetention(hub["clickhouse"], quiet_s_min=-5)
    await enforce(impatient, hub["sources"], 30, JUNE_MS + 31 * MS_PER_DAY)
    client = hub["clickhouse"].client
    await client.command("delete from ticks where seq = 270")
    async with asyncio.timeout(20):
        while (await client.query("select count() from ticks where seq = 270")).result_rows != [(0,)]:
            await asyncio.sleep(0.02)
    assert await problems(hub) == ["1 ticks are missing below seq 300"]


async def test_noting_a_drop_twice_counts_it_once(hub: Hub) -> None:
    impatient = ClickHouseRetention(hub["clickhouse"], quiet_s_min=-5)
    (may,) = await impatient.expired(JUNE_MS + MS_PER_DAY)
    await hub["sources"].note_drop(may)
    await hub["sources"].note_drop(may)
    assert (await hub["sources"].epochs("demo"))[1].rows == 150
    assert await problems(hub) == []


async def test_months_nobody_lived_in_do_not_stop_it(hub: Hub) -> None:
    for number, time_msc in enumerate((-(2**62), -1, 2**62, 10_500_000_000_000)):
        block = make_block(2, first_seq=301 + 2 * number)
        block.rows["time_msc"] = time_msc
        await put(hub["tick_store"], block)
    impatient = ClickHouseRetention(hub["clickhouse"], quiet_s_min=-5)
    assert [month.name for month in await impatient.expired(JUNE_MS + MS_PER_DAY)] == ["202405"]
