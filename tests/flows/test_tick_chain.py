"""The tick chain on real processes: what a terminal holds is what the store holds, row for row."""

import asyncio
from pathlib import Path
from typing import Any

from core.infrastructure.central_hub import open_hub
from core.market.completeness import certify
from core.settings import Settings
from tests.bridges import SOURCE, Bridge
from tests.connectors import RECORDING, build_connector
from tests.recordings import MT5_FILE, RecordedTick, mt5_ticks, needs_recordings, oanda_file, oanda_ticks

COLUMNS = "symbol, time, time_msc, bid, ask, last, volume, volume_real, flags, backfill, utc_offset_s"


def stored(settings: Settings) -> list[tuple[Any, ...]]:
    async def read() -> list[tuple[Any, ...]]:
        async with open_hub(settings, {"clickhouse"}) as hub:
            result = await hub["clickhouse"].client.query(f"select {COLUMNS} from ticks order by epoch, seq")
            return [tuple(row) for row in result.result_rows]

    return asyncio.run(read())


def problems(settings: Settings) -> list[str]:
    """What certificates complain about; ticks no tally covers count too."""

    async def check() -> list[str]:
        async with open_hub(settings, {"certifier", "sources"}) as hub:
            certificates = await certify(hub["certifier"], hub["sources"], [SOURCE])
        assert certificates
        assert all(certificate.days for certificate in certificates)
        found = [problem for certificate in certificates for problem in certificate.problems]
        return found + [f"{c.uncertified} uncertified" for c in certificates if c.uncertified]

    return asyncio.run(check())


def play(bridge: Bridge, directory: Path, path: Path) -> None:
    connector = build_connector(bridge.port, directory, RECORDING, {"path": str(path), "speed": "max"})
    connector.start()
    try:
        connector.wait_drained()
    finally:
        connector.stop()


@needs_recordings
def test_a_real_mt5_recording_arrives_whole(bridge: Bridge, tmp_path: Path) -> None:
    play(bridge, tmp_path, MT5_FILE)
    offset_s, ticks = mt5_ticks()
    assert len(ticks) == 1_500
    assert stored(bridge.settings) == [row("WIN$N", tick, float(tick.volume), offset_s) for tick in ticks]
    assert problems(bridge.settings) == []


@needs_recordings
def test_a_real_day_of_quotes_arrives_whole(bridge: Bridge, tmp_path: Path) -> None:
    play(bridge, tmp_path, oanda_file("20140506"))
    expected = [row("EURUSD", tick, 0.0, 0) for tick in oanda_ticks("20140506")]
    assert stored(bridge.settings) == expected
    assert problems(bridge.settings) == []


def row(symbol: str, tick: RecordedTick, volume_real: float, offset_s: int) -> tuple[Any, ...]:
    """A recorded tick as the store has it."""
    prices = (tick.bid, tick.ask, tick.last)
    time_s = tick.time_msc // 1_000
    return (symbol, time_s, tick.time_msc, *prices, tick.volume, volume_real, tick.flags, 0, offset_s)


def test_playing_a_recording_again_adds_nothing(bridge: Bridge, tmp_path: Path) -> None:
    path = tmp_path / "EURUSD_202401020000_202401020001.csv"
    rows = [f"2024.01.02\t00:00:00.{i:03}\t1.1000{i % 7}\t1.1001{i % 5}\t\t\t6" for i in range(500)]
    path.write_text("<DATE>\t<TIME>\t<BID>\t<ASK>\t<LAST>\t<VOLUME>\t<FLAGS>\n" + "\n".join(rows) + "\n")
    play(bridge, tmp_path, path)
    first = stored(bridge.settings)
    assert len(first) == 500
    play(bridge, tmp_path, path)
    assert stored(bridge.settings) == first


def test_a_lost_spool_neither_doubles_nor_loses(bridge: Bridge, tmp_path: Path) -> None:
    path = tmp_path / "EURUSD_202401020000_202401020001.csv"
    rows = [f"2024.01.02\t00:00:00.{i // 4:03}\t1.10001\t1.10011\t\t\t6" for i in range(1_003)]
    head = "<DATE>\t<TIME>\t<BID>\t<ASK>\t<LAST>\t<VOLUME>\t<FLAGS>\n"
    path.write_text(head + "\n".join(rows[:601]) + "\n")
    play(bridge, tmp_path / "first", path)
    path.write_text(head + "\n".join(rows) + "\n")
    play(bridge, tmp_path / "second", path)
    assert len(stored(bridge.settings)) == 1_003
    assert problems(bridge.settings) == []
