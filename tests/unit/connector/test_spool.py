"""The spool: nothing skipped, nothing repeated, under kill -9, full disks and acknowledgements in any order."""

import os
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.connector.cursor import CursorState
from bridge.connector.frames import pack
from bridge.connector.spool import Spool
from bridge.connector.spool_file import FILE_NAME, SpoolFull
from bridge.connector.tallies import deltas_of
from core.errors.exceptions import Conflict, Corrupt
from core.market.checksum import checksum
from core.messages.wire import Batch, decode_batch
from core.model.ticks import SymbolRun
from tests.unit.connector.tapes import ticks

BASE = 1_700_000_000_000
ROOM = 10**9


def batch(
    count: int, first: int = 0, *, symbol: str = "EURUSD", backfill: bool = False, at_ms: int = 5
) -> Batch:
    rows = ticks([BASE + first + i for i in range(count)])
    return Batch(
        first_seq=1,
        rows=rows,
        runs=(SymbolRun(symbol=symbol, count=count),),
        captured_at_ms=at_ms,
        backfill=backfill,
    )


def state(ms: int) -> CursorState:
    return CursorState(time_msc=ms, count=1, prefix_rows=1, prefix_digest=2**62)


def test_a_reopened_spool_is_what_was_written(tmp_path):
    spool = Spool(tmp_path, ROOM)
    spool.start({"X": CursorState(time_msc=5, count=2)})
    spool.append([batch(3), batch(2, 3)], {"EURUSD": state(7)})
    before = spool.state()
    spool.close()
    again = Spool(tmp_path, ROOM)
    assert again.state() == before
    assert before.next_seq == 6
    assert before.first_seq == 1
    assert before.started
    assert again.cursors() == {"X": CursorState(time_msc=5, count=2), "EURUSD": state(7)}
    again.close()


def test_a_second_connector_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("bridge.connector.spool_file.LOCK_TIMEOUT_S", 0.05)
    spool = Spool(tmp_path, ROOM)
    with pytest.raises(Conflict, match="another connector"):
        Spool(tmp_path, ROOM)
    spool.close()


def test_a_damaged_spool_is_told_in_words(tmp_path):
    Spool(tmp_path, ROOM).close()
    path = tmp_path / FILE_NAME
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(Corrupt, match="move it away"):
        Spool(tmp_path, ROOM)


def test_a_damaged_frame_is_noticed(tmp_path):
    spool = Spool(tmp_path, ROOM)
    spool.append([batch(3)], {})
    frame = spool.frames(1, ROOM)[0]
    with pytest.raises(Corrupt, match="move the spool away"):
        pack([frame[:-1] + bytes([frame[-1] ^ 1])], 1, 100)
    spool.close()


def test_only_what_is_wholly_acknowledged_is_deleted(tmp_path):
    spool = Spool(tmp_path, ROOM)
    spool.append([batch(3), batch(3, 3), batch(3, 6)], {})
    spool.acknowledge(5)
    assert spool.state().first_seq == 4
    assert spool.acknowledge(5) == []
    spool.acknowledge(9)
    assert spool.state().first_seq == spool.state().next_seq == 10
    assert spool.state().pending_bytes == 0
    spool.close()


def test_at_the_limit_nothing_is_written_and_nothing_lost(tmp_path):
    spool = Spool(tmp_path, 5_000)
    spool.append([batch(50)], {"EURUSD": state(1)})
    before = spool.state()
    with pytest.raises(SpoolFull):
        spool.append([batch(10, 50), batch(50, 60)], {"EURUSD": state(2)})
    assert spool.state() == before
    assert spool.cursors()["EURUSD"] == state(1)
    spool.acknowledge(50)
    assert spool.append([batch(10, 50)], {"EURUSD": state(2)}) == 61
    spool.close()


def fill(spool: Spool, rows: int) -> int:
    """Append until the disk is full; return the next seq as last told."""
    next_seq = 1
    for _ in range(1_000):
        try:
            next_seq = spool.append([batch(rows, next_seq)], {"EURUSD": state(next_seq)})
        except SpoolFull:
            return next_seq
    raise AssertionError("the disk never fills")


def test_a_full_disk_refuses_and_recovers(tmp_path):
    """RLIMIT_FSIZE stands for the disk: writes fail in the middle of a transaction."""
    spool = Spool(tmp_path, ROOM)
    spool.append([batch(100)], {"EURUSD": state(1)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
    try:
        assert fill(spool, 2_000) == spool.state().next_seq
        seen = spool.state().next_seq
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    spool.acknowledge(seen - 1)
    assert spool.state().pending_batches == 0
    assert spool.append([batch(5_000)], {}) == seen + 5_000
    spool.close()
    again = Spool(tmp_path, ROOM)
    assert again.state().next_seq == seen + 5_000
    again.close()


def test_a_small_tmpfs_fills_and_drains(tmp_path):
    mounted = tmp_path / "disk"
    mounted.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(mounted)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        spool = Spool(mounted, ROOM)
        stored = fill(spool, 20_000) - 1
        # Room is made by acknowledging: that must work on a full disk.
        spool.acknowledge(stored)
        assert spool.state().pending_batches == 0
        assert spool.append([batch(20_000, stored)], {}) == stored + 20_001
        spool.close()
    finally:
        subprocess.run(["umount", "-l", str(mounted)], check=True)


KILLED = """
import sys
from pathlib import Path
from bridge.connector.cursor import CursorState
from bridge.connector.spool import Spool
from tests.unit.connector.test_spool import BASE, ROOM, batch
spool = Spool(Path(sys.argv[1]), ROOM)
known = spool.cursors().get("EURUSD")
at = known.time_msc - BASE if known else 0
print("ready", flush=True)
while True:
    count = 1 + at * 7919 % 300
    spool.append([batch(count, at)], {"EURUSD": CursorState(time_msc=BASE + at + count, count=1)})
    at += count
    if at % 3 == 0:
        spool.acknowledge(spool.state().first_seq + 10)
"""


def test_killed_while_appending_it_skips_and_repeats_nothing(tmp_path):
    """The tick with seq s is the s-th of the tape, whatever moment the process died at."""
    for round_number in range(8):
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, cwd=os.getcwd()
        )
        assert child.stdout.readline() == b"ready\n"
        time.sleep(0.02 + 0.017 * round_number)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        spool = Spool(tmp_path, ROOM)
        seen = spool.state()
        expected = seen.first_seq
        for frame in spool.frames(seen.first_seq, ROOM):
            found = decode_batch(frame)
            assert found.first_seq == expected
            assert (found.rows["time_msc"] - BASE + 1).tolist() == list(range(expected, found.last_seq + 1))
            expected = found.last_seq + 1
        assert expected == seen.next_seq
        # None: killed before it had stored anything.
        cursor = spool.cursors().get("EURUSD")
        assert (cursor.time_msc - BASE if cursor else 0) == seen.next_seq - 1
        assert sum(tally.rows for tally in spool.tallies(10)) == seen.first_seq - 1
        spool.close()
    assert seen.next_seq > 100


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_frames_tallies_and_deletions_agree_with_the_tape(tmp_path_factory, data):
    spool = Spool(tmp_path_factory.mktemp("spool"), ROOM)
    tape, symbols, acked = [], [], 0
    for _ in range(data.draw(st.integers(1, 12))):
        counts = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=4))
        for count in counts:
            one = batch(count, len(tape) * 40_000, symbol=data.draw(st.sampled_from("AB")))
            spool.append([one], {})
            tape.extend(one.rows)
            symbols.extend([one.runs[0].symbol] * count)
        acked = data.draw(st.integers(acked, len(tape)))
        spool.acknowledge(acked)
        from_seq = data.draw(st.integers(acked + 1, len(tape) + 1))
        rows_max = data.draw(st.integers(1, 90))
        out = pack(spool.frames(from_seq, ROOM), from_seq, rows_max)
        batches = [decode_batch(o.frame) for o in out]
        assert all(1 <= len(b.rows) <= rows_max for b in batches)
        sent = np.concatenate([b.rows for b in batches]) if batches else ticks([])
        assert [row.tobytes() for row in sent] == [row.tobytes() for row in tape[from_seq - 1 :]]
        names = [run.symbol for b in batches for run in b.runs for _ in range(run.count)]
        assert names == symbols[from_seq - 1 :]
    folded = spool.state().first_seq - 1
    for tally in spool.tallies(1_000):
        mine = [
            i
            for i in range(folded)
            if symbols[i] == tally.symbol and int(tape[i]["time_msc"]) // 86_400_000 == tally.day
        ]
        assert tally.rows == len(mine)
        assert tally.first_seq == mine[0] + 1
        assert tally.last_seq == mine[-1] + 1
        expected = sum(checksum(np.array([tape[i]], dtype=sent.dtype), i + 1) for i in mine) % 2**64
        assert tally.checksum == expected
    assert sum(tally.rows for tally in spool.tallies(1_000)) == folded
    spool.close()


def test_tallies_split_at_symbols_and_days():
    day = 86_400_000
    rows = ticks([day - 1, day, day + 1, day + 2])
    runs = (SymbolRun(symbol="A", count=3), SymbolRun(symbol="B", count=1))
    found = deltas_of(Batch(first_seq=10, rows=rows, runs=runs))
    assert [(d.symbol, d.day, d.rows, d.first_seq, d.last_seq) for d in found] == [
        ("A", 0, 1, 10, 10),
        ("A", 1, 2, 11, 12),
        ("B", 1, 1, 13, 13),
    ]
    assert found[1].checksum == checksum(rows[1:3], 11)


def test_small_batches_are_joined_only_where_they_are_alike(tmp_path):
    spool = Spool(tmp_path, ROOM)
    kinds = [batch(2), batch(2, 2), batch(2, 4, backfill=True), batch(2, 6), batch(2, 8, at_ms=5_000)]
    spool.append(kinds, {})
    out = pack(spool.frames(1, ROOM), 1, 100)
    assert [(o.first_seq, o.last_seq) for o in out] == [(1, 4), (5, 6), (7, 8), (9, 10)]
    spool.close()
