"""Whole histories of bars through gateway and worker: what `/v1/bars` answers, in bounded memory."""

import asyncio
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import gateways
from tests.engines import House, wait_for
from tests.exports import Peaks, Reader, begun, generate, measured
from tests.gateways import DAY_MS, FrontDoor, tick
from tests.mt5_bars import read_bars

MANY = 3_000_000
STEP_MS = 1_000
BYTES_MAX = 300_000_000
FIRST_BYTE_S_MAX = 1.0
URL = "/v1/bars/export?symbol=MANY&interval=1s"
FEW = [
    tick(1, DAY_MS + 1_000, 1.10421, 1.10427),
    tick(2, DAY_MS + 2_000, 1.10433, 1.10441, volume_real=1.5),
    tick(3, DAY_MS + 61_000, 0.0, 1.2, last=1.1),
    tick(1, DAY_MS + 1_500, 1.1, 1.2, source="demo2"),
    tick(1, DAY_MS + 1_500, 9.0, 9.5, source="rival", symbol="SECRET"),
]


@pytest.fixture(scope="module")
def door(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    door = gateways.build(tmp_path_factory.mktemp("bars"), house, redis_database=9)
    with gateways.running(door, FEW):
        asyncio.run(generate(door.settings, "MANY", MANY, time_msc=f"{DAY_MS} + number * {STEP_MS}"))
        wait_for(door.ready, "gateway and worker being ready")
        yield door


@pytest.fixture
def http(door: FrontDoor) -> Iterator[httpx.Client]:
    with door.signed_in() as http:
        yield http


def table(form: str, content: bytes) -> Any:
    if form == "arrow":
        return pa.ipc.open_stream(content).read_all()
    return pq.read_table(io.BytesIO(content))


def test_three_million_bars_as_parquet_fit_in_memory_and_begin_at_once(
    http: httpx.Client, door: FrontDoor, tmp_path: Path
) -> None:
    file = tmp_path / "many.parquet"
    with (
        Peaks(gateway=door.gateway.pid, worker=door.worker.pid) as peaks,
        begun(http, f"{URL}&format=parquet") as (first_s, parts),
        file.open("wb") as out,
    ):
        out.writelines(parts)
    times = pq.read_table(file, columns=["time_ms"])["time_ms"].to_numpy()
    assert times.tolist() == list(range(DAY_MS, DAY_MS + MANY * STEP_MS, STEP_MS))
    assert max(peaks.bytes.values()) < BYTES_MAX, peaks.bytes
    assert first_s < FIRST_BYTE_S_MAX


@pytest.mark.parametrize("form", ["csv", "parquet", "arrow"])
def test_an_export_is_written_as_a_page_is(http: httpx.Client, form: str) -> None:
    for symbol in ("EURUSD", "NOTHING"):
        query = f"?symbol={symbol}&format={form}"
        page, export = http.get("/v1/bars" + query), http.get("/v1/bars/export" + query)
        assert page.status_code == export.status_code == 200
        assert page.headers["content-type"] == export.headers["content-type"]
        if form == "csv":
            assert page.content == export.content
        else:
            assert table(form, page.content).equals(table(form, export.content))


def test_json_comes_as_a_bar_a_line(http: httpx.Client) -> None:
    answer = http.get("/v1/bars/export?symbol=EURUSD&interval=1s&price=ask")
    assert answer.headers["content-type"] == "application/x-ndjson"
    bars = [json.loads(line) for line in answer.text.splitlines()]
    assert bars == http.get("/v1/bars?symbol=EURUSD&interval=1s&price=ask").json()["items"]
    assert len(bars) == 4


def test_a_file_for_metatrader_is_what_its_bars_tab_exports(http: httpx.Client) -> None:
    answer = http.get("/v1/bars/export?symbol=EURUSD&source=demo&format=mt5")
    assert answer.headers["content-type"].startswith("text/tab-separated-values")
    assert answer.headers["content-disposition"] == 'attachment; filename="EURUSD_1m.csv"'
    head, *lines = answer.text.splitlines()
    assert head == "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>"
    assert [line.split("\t", 2)[2] for line in lines] == [
        "1.10421\t1.10433\t1.10421\t1.10433\t2\t1.5\t6",
        "1.1\t1.1\t1.1\t1.1\t1\t0\t0",
    ]
    daily = http.get("/v1/bars/export?symbol=EURUSD&source=demo&interval=1d&digits=4&format=mt5")
    assert daily.text.startswith("<DATE>\t<OPEN>")
    assert [(bar["time_ms"], bar["spread"]) for bar in read_bars(daily.content)] == [(DAY_MS, 1)]


def test_another_tenants_bars_are_not_there(http: httpx.Client) -> None:
    refused = http.get("/v1/bars/export?symbol=SECRET&source=rival")
    assert (refused.status_code, refused.json()["code"]) == (404, "SOURCE_NOT_FOUND")
    assert http.get("/v1/bars/export?symbol=SECRET").content == b""


def test_what_makes_no_sense_is_refused_before_it_begins(http: httpx.Client) -> None:
    for query, code in (
        ("", "MISSING_PARAMETER"),
        ("symbol=A&limit=3", "UNKNOWN_PARAMETER"),
        ("symbol=A&interval=2m", "INVALID_PARAMETER"),
        ("symbol=A&digits=11", "INVALID_PARAMETER"),
    ):
        answer = http.get(f"/v1/bars/export?{query}")
        assert (answer.status_code, answer.json()["code"]) == (400, code)


def test_asked_for_its_head_it_sends_no_bars(http: httpx.Client, door: FrontDoor) -> None:
    answer = http.head(f"{URL}&format=parquet")
    assert (answer.status_code, answer.content) == (200, b"")
    wait_for(lambda: measured(door, "tickgate_exports_running") == 0, "the export ending", timeout_s=3)


def test_a_reader_that_goes_away_frees_its_place(door: FrontDoor) -> None:
    with Reader(door, f"{URL}&format=csv") as reader:
        reader.take(1_000)
        assert measured(door, "tickgate_exports_running") == 1
    wait_for(lambda: measured(door, "tickgate_exports_running") == 0, "the export ending", timeout_s=3)


def test_exports_of_ticks_and_of_bars_share_their_places(door: FrontDoor, http: httpx.Client) -> None:
    with (
        Reader(door, f"{URL}&format=csv") as bars,
        Reader(door, "/v1/ticks/export?symbol=MANY&format=csv") as ticks,
    ):
        bars.take(1_000)
        ticks.take(1_000)
        refused = http.get(f"{URL}&format=csv")
        assert (refused.status_code, refused.json()["code"]) == (503, "EXPORTS_BUSY")
    wait_for(lambda: measured(door, "tickgate_exports_running") == 0, "both exports ending", timeout_s=3)
