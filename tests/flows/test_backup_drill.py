"""The drill: a backup is taken while ticks flow, everything is lost, and what comes back is whole, and goes on."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from core.infrastructure.central_hub import open_hub
from core.messages.wire import NackCode
from core.settings import Settings
from tests.backups import bring_back, empty_databases, make, problems, vault_in
from tests.bridges import DAY_MS, Bridge, build_bridge, dial, make_rows
from tests.connectors import RECORDING, build_connector
from tests.engines import House

HEADER = "<DATE>\t<TIME>\t<BID>\t<ASK>\t<LAST>\t<VOLUME>\t<FLAGS>\n"
ROWS = 4_000
BATCH_ROWS = 200


def rows_of(settings: Settings, columns: str, order: str) -> list[tuple[Any, ...]]:
    async def read() -> list[tuple[Any, ...]]:
        async with open_hub(settings, {"clickhouse"}) as hub:
            found = await hub["clickhouse"].rows(f"select {columns} from ticks order by {order}")
            return [tuple(row) for row in found]

    return asyncio.run(read())


@contextmanager
def bridge_on(settings: Settings, directory: Path) -> Iterator[Bridge]:
    directory.mkdir(exist_ok=True)
    bridge = build_bridge(settings, directory)
    bridge.start()
    try:
        bridge.wait_ready()
        yield bridge
    finally:
        bridge.stop(signal.SIGKILL)


def test_a_backup_taken_while_ticks_flow_has_no_hole(house: House, bridge: Bridge, tmp_path: Path) -> None:
    async def flow() -> None:
        """Late rows of one month between those of another, so that parts are read at different times."""
        backup = None
        async with dial(bridge) as wire:
            await wire.resume(next_seq=1_000_000_000)
            seq = 1
            while backup is None or not backup.done():
                rows = make_rows(BATCH_ROWS, seq)
                rows["time_msc"] += (seq // BATCH_ROWS % 3) * 31 * DAY_MS
                rows["time"] = rows["time_msc"] // 1_000
                await wire.batch(seq, rows)
                seq += BATCH_ROWS
                await wire.acknowledged(seq - 1)
                if backup is None and seq > 20 * BATCH_ROWS:
                    backup = asyncio.create_task(
                        asyncio.to_thread(make, bridge.settings, vault_in(tmp_path / "b"))
                    )
            await backup

    asyncio.run(flow())
    target = empty_databases(house, 11)
    bring_back(target, vault_in(tmp_path / "b"))
    ((count, distinct, last),) = rows_of(target, "count(), uniqExact(seq), max(seq)", "1")
    assert count == distinct == last >= 20 * BATCH_ROWS
    ((live,),) = rows_of(bridge.settings, "max(seq)", "1")
    assert live > last, "ticks flowed while it was taken"
    assert problems(target) == []


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A terminal's history, of which the first half is there at first."""
    lines = []
    for i in range(ROWS):
        seconds, ms = divmod(i // 3 * 7, 1_000)
        time = f"10:{seconds // 60:02}:{seconds % 60:02}.{ms:03}"
        lines.append(f"2024.01.02\t{time}\t1.1{i % 1_000:04}\t1.2{i % 977:04}\t\t\t6\n")
    for name, part in (("half", lines[: ROWS // 2]), ("all", lines)):
        (tmp_path / name).mkdir()
        file = tmp_path / name / "EURUSD_202401020000_202401040000.csv"
        file.write_text(HEADER + "".join(part))
    return tmp_path


def test_a_connector_that_was_further_than_the_backup_brings_everything_again_and_nothing_twice(
    house: House, bridge: Bridge, recording: Path
) -> None:
    def play(port: int, which: str) -> None:
        file = recording / which / "EURUSD_202401020000_202401040000.csv"
        connector = build_connector(
            port, recording / "connector", RECORDING, {"path": str(file), "speed": "max"}
        )
        (connector.spool / "status.json").unlink(missing_ok=True)
        connector.start()
        try:
            connector.wait_drained()
        finally:
            connector.stop()

    market = ("time_msc, bid, ask", "time_msc, epoch, seq")
    play(bridge.port, "half")
    make(bridge.settings, vault_in(recording / "b"))
    play(bridge.port, "all")
    everything = rows_of(bridge.settings, *market)
    assert len(everything) == ROWS
    target = empty_databases(house, 12)
    bring_back(target, vault_in(recording / "b"))
    assert rows_of(target, *market) == everything[: ROWS // 2]
    with bridge_on(target, recording / "second") as second:
        play(second.port, "all")
    assert rows_of(target, *market) == everything
    assert problems(target) == []


def test_an_install_from_after_the_backup_begins_anew(house: House, bridge: Bridge, tmp_path: Path) -> None:
    async def before() -> None:
        async with dial(bridge) as wire:
            await wire.resume(install="known", next_seq=1)
            await wire.batch(1, make_rows(300))
            await wire.acknowledged(300)

    async def after(bridge: Bridge) -> None:
        async with dial(bridge) as wire:
            # Its spool begins at 1, so only its being unknown shows that it stands behind ticks that are lost.
            await wire.hello(install="later", first_seq=1, next_seq=50)
            assert (await wire.nack()).code is NackCode.SPOOL_DIVERGED
        async with dial(bridge) as wire:
            resume = await wire.resume(install="known", first_seq=201, next_seq=400)
            assert (resume.epoch, resume.next_seq) == (1, 301)
        async with dial(bridge) as wire:
            resume = await wire.resume(install="fresh", first_seq=1, next_seq=1)
            assert (resume.epoch, resume.next_seq, len(resume.cursors)) == (2, 1, 1)

    asyncio.run(before())
    make(bridge.settings, vault_in(tmp_path / "b"))
    target = empty_databases(house, 13)
    bring_back(target, vault_in(tmp_path / "b"))
    with bridge_on(target, tmp_path / "second") as second:
        asyncio.run(after(second))
