"""The real recordings beside the repository, read by code of the tests' own: what went in."""

import csv
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

DATA = Path(__file__).parents[2] / "shared" / "data"
needs_recordings = pytest.mark.skipif(
    not DATA.is_dir(), reason="the real recordings lie beside the repository"
)
MT5_FILE = DATA / "mt5_win_ticks.ndjson"
DAY_2014_MS = {"20140506": 1_399_334_400_000, "20140507": 1_399_420_800_000, "20140508": 1_399_507_200_000}


@dataclass(frozen=True, slots=True)
class RecordedTick:
    """A row as the file has it; prices are the doubles nearest to its decimals."""

    time_msc: int
    bid: float
    ask: float
    last: float
    volume: int
    flags: int


def mt5_ticks() -> tuple[int, list[RecordedTick]]:
    """Return the server's UTC offset in seconds and the 1,500 ticks of WIN$N."""
    lines = [json.loads(line) for line in MT5_FILE.read_text().splitlines()]
    ticks = [
        RecordedTick(
            tick["time_ms"],
            float(tick["bid"]),
            float(tick["ask"]),
            float(tick["last"]),
            tick["volume"],
            tick["flags"],
        )
        for tick in lines
        if tick["type"] == "tick"
    ]
    return lines[0]["server_utc_offset_s"], ticks


def oanda_file(day: str) -> Path:
    return DATA / f"oanda_eurusd_{day}_quote.zip"


def oanda_ticks(day: str) -> list[RecordedTick]:
    """Return the quotes of one day of EURUSD."""
    with zipfile.ZipFile(oanda_file(day)) as archive:
        text = archive.read(archive.namelist()[0]).decode()
    start_ms = DAY_2014_MS[day]
    return [
        RecordedTick(start_ms + int(ms), float(bid), float(ask), 0.0, 0, 6)
        for ms, bid, ask in csv.reader(io.StringIO(text))
    ]
