"""From a recording to the bridge: every row once, in order, under cuts, losses and restarts."""

import asyncio
import json
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from bridge.connector.recording import load
from bridge.connector.service import Connector
from core.settings import ConnectorSettings
from tests.unit.connector.bridge_double import BridgeDouble, running

RECORDING = "bridge.connector.recording:RecordingTerminal"


def settings(double: BridgeDouble, directory: Path, recording: Path, **more) -> ConnectorSettings:
    options = {"path": str(recording), "speed": more.pop("speed", "max")}
    return ConnectorSettings(
        bridge_url=double.url,
        spool_directory=str(directory / "spool"),
        terminal=more.pop("terminal", RECORDING),
        terminal_options=json.dumps(more.pop("options", options)),
        poll_interval_ms=more.pop("poll_interval_ms", 10),
        **more,
    )


@asynccontextmanager
async def connector(configured: ConnectorSettings):
    running_connector = Connector(configured)
    task = asyncio.create_task(running_connector.run())
    try:
        yield running_connector
    finally:
        running_connector.stop()
        await task


def lean_file(directory: Path, rows: int) -> Path:
    path = directory / "20240102_eurusd_tick_quote.csv"
    path.write_text("".join(f"{i * 37 // 4},1.1{i % 1000:03},1.2{i % 997:03}\n" for i in range(rows)))
    return path


@pytest.mark.parametrize("ack_delay_s", [0.0, 0.05])
async def test_every_row_of_a_recording_arrives_once_and_in_order(tmp_path, ack_delay_s):
    path = lean_file(tmp_path, 30_000)
    async with running(BridgeDouble(ack_delay_s=ack_delay_s)) as double:
        configured = settings(double, tmp_path, path, page_rows=512)
        async with connector(configured):
            await double.until(lambda: double.stores and double.store.durable_seq == 30_000)
            status = await drained(configured)
        assert status["acked_seq"] == 30_000 and status["state"] == "drained"
    truth = load(path)["EURUSD"].rows
    assert double.store.all_rows().tobytes() == truth.tobytes()
    assert double.store.check_tallies() == 30_000
    assert not np.concatenate(double.store.backfill).any()


async def drained(configured: ConnectorSettings) -> dict:
    path = Path(configured.spool_directory) / "status.json"
    async with asyncio.timeout(10):
        while not path.exists() or not json.loads(path.read_bytes())["drained"]:
            await asyncio.sleep(0.02)
    return json.loads(path.read_bytes())
