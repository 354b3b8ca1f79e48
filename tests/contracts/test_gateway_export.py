"""Whole histories through gateway and worker: complete or broken off, in bounded memory, at the reader's pace."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.adapters.clickhouse.client import connect
from core.settings import Settings
from tests import gateways
from tests.engines import House, wait_for
from tests.gateways import DAY_MS, TICK_COLUMNS, FrontDoor, tick

MANY = 5_000_000
SOME = 300_000
BYTES_MAX = 300_000_000
FIRST_BYTE_S_MAX = 1.0
CROWD = 70_000
"""More ticks of one millisecond than a page holds."""
FEW = [
    tick(1, DAY_MS + 1_000, 0.1, 0.30000000000000004),
    tick(2, DAY_MS + 1_000, 1e-7, 5e-324),
    tick(3, DAY_MS + 2_000, 1.2, 1.3, utc_offset_s=None, backfill=1),
    tick(4, DAY_MS + 3_000, float("nan"), 1.0, quarantine="NOT_FINITE"),
    tick(1, DAY_MS + 1_000, 7.0, 7.5, source="demo2"),
    tick(1, DAY_MS + 1_500, 9.0, 9.5, source="rival", symbol="SECRET"),
]


async def _generate(settings: Settings, symbol: str, rows: int, **columns: str) -> None:
    """Let the store make ticks by itself. columns: what differs, in SQL over `number`."""
    written = {
        "source": "'demo'",
        "epoch": "1",
        "seq": "number + 1",
        "symbol": f"'{symbol}'",
        "time": "intDiv(time_msc, 1000)",
        "time_msc": f"{DAY_MS} + number * 20",
        "bid": "1.1 + (number % 9973) / 100000",
        "ask": "bid + 0.00012",
        "last": "0",
        "volume": "0",
        "volume_real": "0",
        "flags": "6",
        "quarantine": "'OK'",
        "backfill": "0",
        "utc_offset_s": "7200",
        "captured_at_ms": "time_msc + 5",
        **columns,
    }
    select = ", ".join(f"{written[name]} as {name}" for name in TICK_COLUMNS)
    client = await connect(settings.clickhouse, settings.clickhouse.database)
    try:
        await client.command(f"insert into ticks select {select} from numbers({rows})")
    finally:
        await client.close()


@pytest.fixture(scope="module")
def door(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    door = gateways.build(tmp_path_factory.mktemp("export"), house, redis_database=9)
    with gateways.running(door, FEW):
        for symbol, rows, columns in (
            ("MANY", MANY, {}),
            ("SOME", SOME, {}),
            ("CROWD", CROWD, {"time_msc": f"{DAY_MS} + if(number < 10, 0, 1)"}),
        ):
            asyncio.run(_generate(door.settings, symbol, rows, **columns))
        for number, source in enumerate(("demo", "demo2")):
            columns = {
                "source": f"'{source}'",
                "seq": f"number * 2 + {number}",
                "time_msc": f"{DAY_MS} + intDiv(number * 2 + {number}, 5)",
            }
            asyncio.run(_generate(door.settings, "BOTH", 40_000, **columns))
        yield door


@pytest.fixture
def http(door: FrontDoor) -> Iterator[httpx.Client]:
    wait_for(door.ready, "gateway and worker being ready")
    with door.signed_in() as http:
        yield http


class Peaks:
    """The most memory each process held while this ran."""

    def __init__(self, **pids: int) -> None:
        self._processes = {name: _tree(pid) for name, pid in pids.items()}
        self.bytes: dict[str, int] = {}

    def __enter__(self) -> "Peaks":
        for processes in self._processes.values():
            for pid in processes:
                Path(f"/proc/{pid}/clear_refs").write_text("5")
        return self

    def __exit__(self, *_: object) -> None:
        self.bytes = {name: max(map(_peak, pids)) for name, pids in self._processes.items()}


def _tree(pid: int) -> list[int]:
    process = psutil.Process(pid)
    return [pid, *(child.pid for child in process.children(recursive=True))]


def _peak(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1_024
    raise AssertionError(f"{pid} shows no peak")


@contextmanager
def _timed(http: httpx.Client, url: str) -> Iterator[tuple[httpx.Response, Iterator[bytes], float]]:
    started_s = time.monotonic()
    with http.stream("GET", url) as answer:
        assert answer.status_code == 200, answer.read()
        parts = answer.iter_raw()
        first = next(parts)
        elapsed_s = time.monotonic() - started_s

        def everything() -> Iterator[bytes]:
            yield first
            yield from parts

        yield answer, everything(), elapsed_s


def test_five_million_ticks_as_parquet_fit_in_memory_and_begin_at_once(
    http: httpx.Client, door: FrontDoor, tmp_path: Path
) -> None:
    file, started_s = tmp_path / "many.parquet", time.monotonic()
    with (
        Peaks(gateway=door.gateway.pid, worker=door.worker.pid) as peaks,
        _timed(http, "/v1/ticks/export?symbol=MANY&format=parquet") as (_, parts, first_s),
        file.open("wb") as out,
    ):
        for part in parts:
            out.write(part)
    took_s = time.monotonic() - started_s
    print("parquet", peaks.bytes, first_s, took_s, file.stat().st_size, MANY / took_s)
    table = pq.read_table(file, columns=["seq", "time_msc", "bid"])
    assert table.num_rows == MANY
    assert pa.compute.sum(table["seq"]).as_py() == MANY * (MANY + 1) // 2
    assert table["time_msc"][-1].as_py() == DAY_MS + (MANY - 1) * 20
    assert max(peaks.bytes.values()) < BYTES_MAX
    assert first_s < FIRST_BYTE_S_MAX


def test_five_million_ticks_as_csv_fit_in_memory_and_begin_at_once(
    http: httpx.Client, door: FrontDoor
) -> None:
    lines, size, started_s = 0, 0, time.monotonic()
    with (
        Peaks(gateway=door.gateway.pid, worker=door.worker.pid) as peaks,
        _timed(http, "/v1/ticks/export?symbol=MANY&format=csv") as (_, parts, first_s),
    ):
        for part in parts:
            lines += part.count(b"\n")
            size += len(part)
    took_s = time.monotonic() - started_s
    print("csv", peaks.bytes, first_s, took_s, size, MANY / took_s)
    assert lines == MANY + 1
    assert max(peaks.bytes.values()) < BYTES_MAX
    assert first_s < FIRST_BYTE_S_MAX
