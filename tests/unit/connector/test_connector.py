"""From a recording to the bridge: every row once, in order, under cuts, losses and restarts."""

import asyncio
import json
import os
import ssl
import subprocess
import sys
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from bridge.connector import reading, session
from bridge.connector.recording import load
from bridge.connector.service import Connector
from bridge.connector.simulated import SimulatedTerminal
from bridge.connector.spool_file import SpoolFull
from bridge.connector.spool_thread import SpoolThread
from core.errors.exceptions import Misconfigured
from core.messages.wire import Nack, NackCode, NoticeCode
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
        assert status["acked_seq"] == 30_000
        assert status["state"] == "drained"
    truth = load(path)["EURUSD"].rows
    assert double.store.all_rows().tobytes() == truth.tobytes()
    assert double.store.check_tallies() == 30_000
    assert not np.concatenate(double.store.backfill).any()


def holds(double: BridgeDouble, seq: int) -> bool:
    return bool(double.stores) and double.store.durable_seq >= seq


async def drained(configured: ConnectorSettings) -> dict:
    path = Path(configured.spool_directory) / "status.json"
    async with asyncio.timeout(10):
        while not path.exists() or not json.loads(path.read_bytes())["drained"]:
            await asyncio.sleep(0.02)
    return json.loads(path.read_bytes())


def check_complete(double: BridgeDouble, path: Path) -> None:
    truth = load(path)["EURUSD"].rows
    assert double.store.all_rows().tobytes() == truth.tobytes()


async def test_cuts_losses_and_bad_frames_lose_and_double_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(session, "ACK_STALL_S_MAX", 1.5)
    path = lean_file(tmp_path, 20_000)
    faults = {"cut_after_frames": [7, 30], "lose_frames": [3, 12, 40], "corrupt_frames": [5, 22]}
    async with running(
        BridgeDouble(**faults, ack_delay_s=0.01, window_rows=2_000, window_frames=9)
    ) as double:
        configured = settings(double, tmp_path, path, page_rows=300)
        async with connector(configured):
            await double.until(lambda: double.stores and double.store.durable_seq == 20_000)
            await drained(configured)
        assert not (double.cut_after_frames)
        assert not (double.lose_frames)
        assert not (double.corrupt_frames)
        assert len(double.hellos) >= 3
        assert len(double.stores) == 1
        assert double.unacknowledged_max <= 2_000
    check_complete(double, path)
    assert double.store.check_tallies() == 20_000


async def test_a_batch_larger_than_the_window_is_cut(tmp_path):
    path = lean_file(tmp_path, 5_000)
    async with (
        running(BridgeDouble(window_rows=700, window_frames=2, ack_delay_s=0.001)) as double,
        connector(settings(double, tmp_path, path, page_rows=4_096)),
    ):
        await double.until(partial(holds, double, 5_000))
    check_complete(double, path)


async def test_a_restarted_connector_goes_on_where_it_was(tmp_path):
    path = lean_file(tmp_path, 20_000)
    async with running(BridgeDouble(ack_delay_s=0.02, window_rows=1_000)) as double:
        configured = settings(double, tmp_path, path, page_rows=500)
        for wanted in (1, 4_000, 9_000, 20_000):
            async with connector(configured):
                await double.until(partial(holds, double, wanted))
        assert len({hello.install for hello in double.hellos}) == 1
    check_complete(double, path)
    assert double.store.check_tallies() == 20_000


async def test_a_spool_filled_without_a_bridge_arrives_later(tmp_path):
    path = lean_file(tmp_path, 20_000)
    async with running(BridgeDouble()) as double:
        configured = settings(double, tmp_path, path, page_rows=100)
        async with connector(configured):
            await double.until(lambda: double.stores and double.store.durable_seq > 0)
            port = double.port
    # Nobody listens; the connector reads on and waits.
    double.frames.clear()
    async with connector(configured) as waiting:
        async with asyncio.timeout(20):
            while waiting.status().next_seq <= 20_000:
                await asyncio.sleep(0.01)
        assert waiting.status().state == "connecting"
        waiting_batches = waiting.status().pending_batches
        async with running(double, port):
            await double.until(lambda: double.store.durable_seq == 20_000)
    check_complete(double, path)
    assert waiting_batches > 1


async def test_a_diverged_spool_starts_a_new_epoch_behind_the_store(tmp_path):
    path = lean_file(tmp_path, 6_000)
    async with running(BridgeDouble(ack_delay_s=0.02, window_rows=500)) as double:
        configured = settings(double, tmp_path, path, page_rows=100)
        async with connector(configured):
            await double.until(lambda: double.stores and double.store.durable_seq >= 1_000)
        # The spool is put back to an earlier state: it would give the same seqs to other ticks.
        old = double.store
        (Path(configured.spool_directory) / "spool.sqlite").unlink()
        double.stores = {("x" + double.hellos[0].install): old}
        async with connector(configured):
            await double.until(lambda: len(double.stores) == 2 and total(double) == 6_000)
    both = np.concatenate([store.all_rows() for store in double.stores.values()])
    assert both.tobytes() == load(path)["EURUSD"].rows.tobytes()


async def test_a_refusal_for_divergence_gets_a_new_install_and_is_told(tmp_path):
    path = lean_file(tmp_path, 3_000)
    async with running(BridgeDouble(ack_delay_s=0.01)) as double:
        configured = settings(double, tmp_path, path, page_rows=100)
        async with connector(configured):
            await double.until(lambda: double.stores and double.store.durable_seq == 3_000)
            await drained(configured)
            # The store lost its end: the spool begins behind it.
            store = double.store
            store.rows, store.symbols = [store.all_rows()[:2_000]], [np.concatenate(store.symbols)[:2_000]]
            store.durable_seq = 2_000
            await double.cut()
            await double.until(lambda: len(double.stores) == 2 and total(double) == 3_000)
            await double.until(lambda: double.notices)
        assert double.notices[0].code is NoticeCode.EPOCH_STARTED
        assert len({hello.install for hello in double.hellos}) == 2
    both = np.concatenate([store.all_rows() for store in double.stores.values()])
    assert both.tobytes() == load(path)["EURUSD"].rows.tobytes()


def total(double: BridgeDouble) -> int:
    return sum(store.durable_seq for store in double.stores.values())


async def test_refusals_are_waited_out(tmp_path):
    path = lean_file(tmp_path, 500)
    codes = [NackCode.STORE_UNAVAILABLE, NackCode.SOURCE_BUSY, NackCode.UNAUTHORIZED, NackCode.INTERNAL]
    refusals = [Nack(code=code, message="not now", retry_ms=10) for code in codes]
    async with (
        running(BridgeDouble(refusals=refusals)) as double,
        connector(settings(double, tmp_path, path)),
    ):
        await double.until(lambda: double.stores and double.store.durable_seq == 500)
    assert len(double.hellos) == 5


async def test_the_bridges_wish_to_wait_is_respected(tmp_path):
    path = lean_file(tmp_path, 10)
    refusal = Nack(code=NackCode.STORE_UNAVAILABLE, message="not now", retry_ms=900)
    async with (
        running(BridgeDouble(refusals=[refusal])) as double,
        connector(settings(double, tmp_path, path)),
    ):
        await double.until(lambda: len(double.hellos) == 1)
        started = asyncio.get_running_loop().time()
        await double.until(lambda: len(double.hellos) == 2)
        assert asyncio.get_running_loop().time() - started > 0.85


async def test_a_silent_bridge_is_left_within_a_few_heartbeats(tmp_path):
    path = lean_file(tmp_path, 10)
    async with running(BridgeDouble(heartbeat_ms=100)) as double, connector(settings(double, tmp_path, path)):
        await double.until(lambda: double.stores and double.store.durable_seq == 10)
        double.silent = True
        started = asyncio.get_running_loop().time()
        await double.until(lambda: len(double.hellos) == 2)
        assert 0.25 < asyncio.get_running_loop().time() - started < 1.5


async def test_a_full_spool_stops_reading_and_loses_nothing(tmp_path):
    path = lean_file(tmp_path, 20_000)
    double = BridgeDouble(ack_delay_s=0.05, window_rows=1_000)
    async with running(double):
        configured = settings(double, tmp_path, path, page_rows=200, spool_bytes_max=600_000)
        async with connector(configured) as full:
            while not full.status().spool_full:
                await asyncio.sleep(0.005)
            assert full.status().pending_bytes <= 600_000
            double.ack_delay_s, double.window_rows = 0.0, 100_000
            await double.cut()
            await double.until(lambda: double.store.durable_seq == 20_000, 40)
            await double.until(lambda: len(double.notices) >= 2)
    check_complete(double, path)
    codes = [notice.code for notice in double.notices]
    assert codes[:2] == [NoticeCode.SPOOL_FULL, NoticeCode.SPOOL_RESUMED]


async def test_a_full_disk_is_told_once_however_often_it_is_tried(tmp_path, monkeypatch):
    path = lean_file(tmp_path, 1_000)
    tries, append = 0, SpoolThread.append

    async def full_at_first(self, *rows):
        nonlocal tries
        tries += 1
        if tries <= 5:
            raise SpoolFull("the disk is full of something else")
        return await append(self, *rows)

    monkeypatch.setattr(SpoolThread, "append", full_at_first)
    monkeypatch.setattr(reading, "SPOOL_FULL_PAUSE_S", 0.01)
    async with running(BridgeDouble()) as double, connector(settings(double, tmp_path, path)):
        await double.until(lambda: holds(double, 1_000))
        await double.until(lambda: len(double.notices) >= 2)
    check_complete(double, path)
    assert [notice.code for notice in double.notices] == [NoticeCode.SPOOL_FULL, NoticeCode.SPOOL_RESUMED]


async def test_over_tls_only_a_bridge_with_a_known_certificate_is_trusted(tmp_path):
    path, certificate, key = lean_file(tmp_path, 500), tmp_path / "bridge.pem", tmp_path / "bridge.key"
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    request += ["-days", "2", "-subj", "/CN=bridge", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*request, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    async with running(BridgeDouble(), tls=context) as double:
        configured = settings(double, tmp_path, path)
        secure = structs.replace(configured, bridge_url=f"wss://127.0.0.1:{double.port}")
        async with connector(secure) as distrustful:
            async with asyncio.timeout(10):
                while "CERTIFICATE_VERIFY_FAILED" not in distrustful.status().problem:
                    await asyncio.sleep(0.02)
            assert not double.hellos
        async with connector(structs.replace(secure, tls_ca_file=str(certificate))):
            await double.until(partial(holds, double, 500))
    check_complete(double, path)


@pytest.mark.parametrize("url", ["ws://example.com", "ws://10.0.0.1:8001", "http://127.0.0.1", "nonsense"])
async def test_plain_text_beyond_this_machine_is_refused(tmp_path, url):
    with pytest.raises(Misconfigured):
        Connector(ConnectorSettings(bridge_url=url, spool_directory=str(tmp_path)))


async def test_a_bad_recording_ends_the_connector_with_its_reason(tmp_path):
    path = tmp_path / "20240102_eurusd_tick_quote.csv"
    path.write_text("1,1.1,1.2\nrubbish\n")
    async with running(BridgeDouble()) as double:
        with pytest.raises(Misconfigured, match="line 2"):
            await Connector(settings(double, tmp_path, path)).run()


SIMULATED = "bridge.connector.simulated:SimulatedTerminal"


async def test_live_ticks_survive_a_bad_terminal_and_their_offset_is_measured(tmp_path):
    faults = {"refuse": 0.1, "partial": 0.2, "repeat": 0.2, "hang": 0.004, "delay": 0.02, "delay_ms": 20}
    options = {"rate": 60, "faults": faults, "symbols": ["EURUSD", "XAUUSD"]}
    async with running(BridgeDouble(ack_delay_s=0.02)) as double:
        configured = settings(
            double,
            tmp_path,
            tmp_path,
            terminal=SIMULATED,
            options=options,
            call_timeout_s=1.0,
            poll_interval_ms=20,
        )
        async with connector(configured) as live:
            await double.until(
                lambda: (
                    double.store.offsets and double.store.offsets[-1][-1] == 10_800
                    if double.stores
                    else False
                ),
                25,
            )
            await asyncio.sleep(0.5)
        assert live.status().utc_offset_s == 10_800
    truth = SimulatedTerminal({"rate": 60}, Path(configured.spool_directory))
    for symbol in ("EURUSD", "XAUUSD"):
        rows = double.store.rows_of(symbol)
        expected = truth.truth(symbol, 0, int(rows["time_msc"][-1]) + 1)[: len(rows)]
        assert len(rows) > 1_000
        assert rows.tobytes() == expected.tobytes()
    backfill = np.concatenate(double.store.backfill)
    assert backfill[0], "history first"
    assert not backfill[-1], "then live"


async def test_ticks_made_while_it_was_down_are_backfilled_and_marked(tmp_path):
    options = {"rate": 50, "symbols": ["EURUSD"]}
    async with running(BridgeDouble()) as double:
        configured = settings(double, tmp_path, tmp_path, terminal=SIMULATED, options=options)
        async with connector(configured):
            await double.until(
                lambda: double.stores and double.store.backfill and not double.store.backfill[-1][-1]
            )
        seen = double.store.durable_seq
        await asyncio.sleep(1.5)
        async with connector(configured):
            await double.until(lambda: double.store.durable_seq > seen and not double.store.backfill[-1][-1])
    absent = np.concatenate(double.store.backfill)[seen:]
    assert absent[0]
    assert np.count_nonzero(absent) > 10
    rows = double.store.all_rows()
    truth = SimulatedTerminal({"rate": 50}, Path(configured.spool_directory))
    assert rows.tobytes() == truth.truth("EURUSD", 0, int(rows["time_msc"][-1]) + 1)[: len(rows)].tobytes()


async def test_a_killed_connector_loses_and_doubles_nothing(tmp_path):
    path = lean_file(tmp_path, 40_000)
    async with running(BridgeDouble(ack_delay_s=0.005, window_rows=3_000)) as double:
        configured = settings(double, tmp_path, path, page_rows=64)
        environment = {
            **os.environ,
            "TICKGATE_CONNECTOR_BRIDGE_URL": configured.bridge_url,
            "TICKGATE_CONNECTOR_SPOOL_DIRECTORY": configured.spool_directory,
            "TICKGATE_CONNECTOR_TERMINAL": configured.terminal,
            "TICKGATE_CONNECTOR_TERMINAL_OPTIONS": configured.terminal_options,
            "TICKGATE_CONNECTOR_PAGE_ROWS": "64",
        }
        for kill_at in (1, 5_000, 12_000, 20_000, 40_000):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bridge.connector"),
                env=environment,
                stdout=asyncio.subprocess.DEVNULL,
            )
            await double.until(partial(holds, double, kill_at))
            if kill_at < 40_000:
                process.kill()
            else:
                await drained(configured)
                process.terminate()
            code = await process.wait()
        assert code == 0, "SIGTERM ends it cleanly"
    check_complete(double, path)
    assert double.store.check_tallies() == 40_000
