"""Recordings: each format exactly, bad files in one readable sentence, the same answers after a restart."""

import gzip
import json
import time
import zipfile

import numpy as np
import pytest

from bridge.connector import recording
from bridge.connector.recording import RecordingTerminal, load
from core.errors.exceptions import Invalid, Misconfigured
from tests.unit.connector.tapes import data_file

EXPORT = (
    "<DATE>\t<TIME>\t<BID>\t<ASK>\t<LAST>\t<VOLUME>\t<FLAGS>\r\n"
    "2024.01.02\t00:05:01.125\t1.10427\t1.10451\t\t\t6\r\n"
    "2024.01.02\t00:05:01.125\t1.10429\t\t\t\t2\r\n"
    "2024.01.02\t23:59:59.999\t\t1.10455\t1.10440\t2.5\t28\r\n"
    "\r\n"
    "2024.01.03\t00:00:00\t1.10430\t\t\t\t2\r\n"
)
DAY = 1_704_153_600_000


@pytest.fixture
def export(tmp_path):
    path = tmp_path / "EURUSD_202401020000_202401022359.csv"
    path.write_text(EXPORT)
    return path


def check_export(found):
    rows = found["EURUSD"].rows
    assert rows["time_msc"].tolist() == [DAY + 301_125, DAY + 301_125, DAY + 86_399_999, DAY + 86_400_000]
    assert rows["time"].tolist() == [t // 1_000 for t in rows["time_msc"].tolist()]
    assert rows["bid"].tolist() == [1.10427, 1.10429, 1.10429, 1.10430]
    assert rows["ask"].tolist() == [1.10451, 1.10451, 1.10455, 1.10455]
    assert rows["last"].tolist() == [0.0, 0.0, 1.10440, 1.10440]
    assert rows["volume_real"].tolist() == [0.0, 0.0, 2.5, 2.5]
    assert rows["volume"].tolist() == [0, 0, 2, 2]
    assert rows["flags"].tolist() == [6, 2, 28, 2]
    assert found["EURUSD"].utc_offset_s is None
    assert found["EURUSD"].digits == 5


def test_an_export_is_read_with_empty_cells_carried(export):
    check_export(load(export))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-16-be"])
def test_an_export_may_be_utf_16_or_have_a_mark(tmp_path, encoding):
    path = tmp_path / "EURUSD_202401020000_202401022359.csv"
    content = EXPORT.encode(encoding)
    path.write_bytes(b"\xfe\xff" + content if encoding == "utf-16-be" else content)
    check_export(load(path))


def test_an_export_may_be_packed(tmp_path, export):
    zipped = tmp_path / "anything.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.write(export, export.name)
    check_export(load(zipped))
    gzipped = tmp_path / (export.name + ".gz")
    gzipped.write_bytes(gzip.compress(export.read_bytes()))
    check_export(load(gzipped))


BAD_LINES = [
    ("2024.01.02\t00:05:01.1\t1\t1\t\t\t6", "00:05:01.1"),
    ("2024.01.02\t24:05:01.100\t1\t1\t\t\t6", "24:05:01.100"),
    ("2024.13.02\t00:05:01.100\t1\t1\t\t\t6", "2024.13.02"),
    ("2024.01.02\t00:05:01.100\t1.x\t1\t\t\t6", "<BID> is '1.x'"),
    ("2024.01.02\t00:05:01.100\t1\t1\t\t6", "6 columns"),
]


@pytest.mark.parametrize(("line", "said"), BAD_LINES)
def test_a_bad_line_of_an_export_is_named(tmp_path, line, said):
    path = tmp_path / "EURUSD.csv"
    path.write_text(EXPORT + line + "\r\n")
    with pytest.raises(Invalid) as error:
        load(path)
    assert "line 7" in str(error.value)
    assert said in str(error.value)


def test_other_columns_are_refused(tmp_path):
    path = tmp_path / "EURUSD.csv"
    path.write_text("<DATE>\t<TIME>\t<OPEN>\t<HIGH>\n")
    with pytest.raises(Invalid, match="line 1: the columns are"):
        load(path)


def test_the_json_recording_has_every_row():
    found = load(data_file("mt5_win_ticks.ndjson"))["WIN$N"]
    assert len(found.rows) == 1_500
    assert found.utc_offset_s == -10_800
    assert found.digits == 0
    lines = [json.loads(line) for line in data_file("mt5_win_ticks.ndjson").read_text().splitlines()[1:-1]]
    assert found.rows["time_msc"].tolist() == [line["time_ms"] for line in lines]
    assert found.rows["last"].tolist() == [float(line["last"]) for line in lines]
    assert set(found.rows["flags"].tolist()) == {1080}


def test_a_bad_line_of_a_json_recording_is_named(tmp_path):
    path = tmp_path / "x.ndjson"
    good = {"type": "tick", "time_ms": 1, "bid": "1", "ask": "1", "last": "0", "volume": 0, "flags": 6}
    lines = [{"type": "hello", "symbol": "X"}, good, {**good, "bid": "one"}]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    with pytest.raises(Invalid, match="line 3: bid is 'one'"):
        load(path)
    path.write_text("\n".join(json.dumps(line) for line in lines[:2]) + '\n{"type": "tick", "time_')
    with pytest.raises(Invalid, match="line 3"):
        load(path)


@pytest.mark.parametrize(
    ("name", "rows", "offset_s"),
    [("oanda_eurusd_20140506_quote.zip", None, 0), ("fxcm_eurusd_20140508_quote.zip", 167_466, -18_000)],
)
def test_lean_quotes_are_exactly_the_text(name, rows, offset_s):
    path = data_file(name)
    started = time.perf_counter()
    found = load(path)["EURUSD"]
    assert time.perf_counter() - started < 2.0
    with zipfile.ZipFile(path) as archive:
        member = archive.namelist()[0]
        lines = archive.read(member).decode().split()
    assert rows in (None, len(found.rows))
    assert found.utc_offset_s == offset_s
    midnight = int(np.datetime64(f"{member[:4]}-{member[4:6]}-{member[6:8]}", "ms").astype(int))
    columns = list(zip(*(line.split(",") for line in lines), strict=True))
    assert found.rows["time_msc"].tolist() == [midnight + int(ms) for ms in columns[0]]
    assert found.rows["bid"].tolist() == [float(bid) for bid in columns[1]]
    assert found.rows["ask"].tolist() == [float(ask) for ask in columns[2]]
    assert set(found.rows["flags"].tolist()) == {6}


def test_lean_paths_name_the_symbol_too(tmp_path):
    path = tmp_path / "fxcm" / "tick" / "gbpusd" / "20240102_quote.csv"
    path.parent.mkdir(parents=True)
    path.write_text("5,1.2,1.3\n")
    found = load(path)["GBPUSD"]
    assert found.utc_offset_s == -18_000
    assert found.rows["time_msc"].tolist() == [DAY + 5]


@pytest.mark.parametrize(
    "line", ["1,2", "x,1.1,1.2", "1.5,1.1,1.2", "5,1.1,abc", "86400000,1.1,1.2", "-1,1.1,1.2"]
)
def test_a_bad_line_of_lean_quotes_is_named(tmp_path, line):
    path = tmp_path / "20240102_eurusd_tick_quote.csv"
    path.write_text("4,1.1,1.2\n" + line + "\n")
    with pytest.raises(Invalid, match="line 2"):
        load(path)


@pytest.mark.parametrize(
    "content", [b"", b"hello world\n", b"\x00\x01\x02" * 100, b"PK\x03\x04rubbish", b"\x1f\x8brubbish"]
)
def test_anything_else_is_refused_in_one_sentence(tmp_path, content):
    path = tmp_path / "ticks.csv"
    path.write_bytes(content)
    with pytest.raises(Invalid) as error:
        load(path)
    assert "\n" not in error.value.public


def test_a_missing_file_and_a_bad_speed_are_refused(tmp_path, export):
    with pytest.raises(Invalid, match="No such file"):
        RecordingTerminal({"path": str(tmp_path / "nothing.csv")}, tmp_path)
    for speed in (0, -1, "fast"):
        with pytest.raises(Misconfigured):
            RecordingTerminal({"path": str(export), "speed": speed}, tmp_path)


def test_answers_have_the_packages_meaning(tmp_path, export):
    terminal = RecordingTerminal({"path": str(export)}, tmp_path)
    second = (DAY + 301_125) // 1_000
    assert len(terminal.copy_ticks_from("EURUSD", second, 100, -1)) == 4
    assert len(terminal.copy_ticks_from("EURUSD", second, 2, -1)) == 2
    assert len(terminal.copy_ticks_from("EURUSD", second + 1, 100, -1)) == 2
    # A range ends at second date_to exactly.
    assert len(terminal.copy_ticks_range("EURUSD", second, second, -1)) == 0
    assert len(terminal.copy_ticks_range("EURUSD", second, (DAY + 86_400_000) // 1_000, -1)) == 4
    assert len(terminal.copy_ticks_from("EURUSD", second, 100, 2)) == 1
    assert terminal.copy_ticks_from("NOTHING", second, 100, -1) is None
    assert terminal.last_error()[0] == -4
    assert terminal.copy_ticks_from("EURUSD", second, 0, -1) is None
    assert terminal.last_error()[0] == -2
    assert terminal.finished()


def test_a_restarted_player_goes_on_as_if_it_had_not_stopped(tmp_path, export, monkeypatch):
    now_s = 1_000_000.0
    monkeypatch.setattr(recording.time, "time", lambda: now_s)

    def visible(speed) -> int:
        return len(
            RecordingTerminal({"path": str(export), "speed": speed}, tmp_path).copy_ticks_from(
                "EURUSD", 1, 9, -1
            )
        )

    assert visible(2.0) == 2
    now_s += (86_399 - 301) / 2
    assert visible(1.0) == 2
    now_s += 0.8745
    assert visible(1.0) == 3
    now_s += 0.5
    assert visible(2.0) == 4
