"""Ticks exported as MetaTrader 5 does, replayed into a fresh store and exported again: the same bytes."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core.infrastructure.central_hub import open_hub
from core.market.mt5_files import HEADER, TickCsvFile
from core.messages.jobs import ExportFormat, ExportQuery
from core.settings import Settings
from tests.bridges import SOURCE, Bridge, build_bridge
from tests.connectors import RECORDING, SIMULATED, build_connector
from tests.engines import House, new_databases, wait_for
from tests.recordings import MT5_FILE, needs_recordings, oanda_file

ROWS_MAX = 10_000_000


def exported(settings: Settings, symbol: str) -> bytes:
    async def read() -> bytes:
        query = ExportQuery(symbol=symbol, format=ExportFormat.MT5)
        async with open_hub(settings, {"tick_pages"}) as hub:
            sources = await hub["tick_pages"].sources(query, [SOURCE], ROWS_MAX)
            file = TickCsvFile()
            parts = [file.add(page) async for page in hub["tick_pages"].pages(query, sources)]
        return b"".join([*parts, file.finish()])

    return asyncio.run(read())


@contextmanager
def fresh(house: House, directory: Path) -> Iterator[Bridge]:
    directory.mkdir()
    bridge = build_bridge(new_databases(house), directory)
    bridge.start()
    try:
        bridge.wait_ready()
        yield bridge
    finally:
        bridge.stop(signal.SIGKILL)


def replayed(house: House, directory: Path, file: Path, symbol: str) -> bytes:
    """Replay a file into a fresh store and return the export of that."""
    with fresh(house, directory) as bridge:
        connector = build_connector(
            bridge.port, directory / "connector", RECORDING, {"path": str(file), "speed": "max"}
        )
        connector.start()
        try:
            connector.wait_drained()
        finally:
            connector.stop()
        return exported(bridge.settings, symbol)


def assert_comes_back(house: House, directory: Path, symbol: str, text: bytes) -> None:
    assert text.startswith(HEADER)
    assert text.count(b"\n") > 100
    file = directory / f"{symbol}.csv"
    file.write_bytes(text)
    assert replayed(house, directory / "again", file, symbol) == text


@needs_recordings
@pytest.mark.parametrize(
    ("file", "symbol"), [(MT5_FILE, "WIN$N"), (oanda_file("20140506"), "EURUSD")], ids=["mt5", "oanda"]
)
def test_a_real_recording_comes_back_byte_for_byte(
    house: House, tmp_path: Path, file: Path, symbol: str
) -> None:
    assert_comes_back(house, tmp_path, symbol, replayed(house, tmp_path / "first", file, symbol))


def test_what_a_simulated_terminal_quoted_comes_back_byte_for_byte(house: House, tmp_path: Path) -> None:
    with fresh(house, tmp_path / "first") as bridge:
        connector = build_connector(bridge.port, tmp_path / "connector", SIMULATED, {})
        connector.start()
        try:
            wait_for(lambda: connector.status().get("acked_seq", 0) > 1_000, "a thousand ticks")
        finally:
            connector.stop()
        text = exported(bridge.settings, "EURUSD")
    assert_comes_back(house, tmp_path, "EURUSD", text)
