"""Whole histories through gateway and worker: complete or broken off, in bounded memory, at the reader's pace."""

import asyncio
import csv
import io
import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from redis import Redis

from tests import gateways
from tests.engines import House, wait_for
from tests.exports import STEP_MS, Peaks, Reader, begun, generate, measured
from tests.faults.proxy import Proxy
from tests.gateways import DAY_MS, FrontDoor, tick

MANY = 5_000_000
MILLION = 1_000_000
SOME = 30_000
BOTH = 40_000
OFFSET_MS = 7_200_000
AWAKE_S_MAX = 0.5
BYTES_MAX = 300_000_000
FIRST_BYTE_S_MAX = 1.0
WINDOW_CHUNKS = 8
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


@pytest.fixture(scope="module")
def store(house: House) -> Iterator[Proxy]:
    """What stands between the worker and ClickHouse."""
    proxy = Proxy(house.settings.clickhouse.port)
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def door(house: House, store: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    replace = msgspec.structs.replace
    settings = replace(house.settings, clickhouse=replace(house.settings.clickhouse, port=store.port))
    door = gateways.build(
        tmp_path_factory.mktemp("export"), House(house.root, settings, house.engines), redis_database=9
    )
    with gateways.running(door, FEW):
        for symbol, rows, columns in (
            ("MANY", MANY, {}),
            ("SOME", SOME, {}),
            ("CROWD", CROWD, {"time_msc": f"{DAY_MS} + if(number < 10, 0, 1)"}),
        ):
            asyncio.run(generate(door.settings, symbol, rows, **columns))
        for number, source in enumerate(("demo", "demo2")):
            columns = {
                "source": f"'{source}'",
                "seq": f"number * 2 + {number}",
                "time_msc": f"{DAY_MS} + intDiv(number * 2 + {number}, 5)",
            }
            asyncio.run(generate(door.settings, "BOTH", BOTH, **columns))
        yield door


@pytest.fixture
def http(door: FrontDoor) -> Iterator[httpx.Client]:
    wait_for(door.ready, "gateway and worker being ready")
    with door.signed_in() as http:
        yield http


def exhaust(parts: Iterator[bytes]) -> None:
    for _ in parts:
        pass


def stands_still(figure: Callable[[], float], for_s: float = 0.5) -> float:
    """Return a figure once it has not changed for a while."""
    seen, since_s = figure(), time.monotonic()

    def still() -> bool:
        nonlocal seen, since_s
        if (now := figure()) != seen:
            seen, since_s = now, time.monotonic()
        return time.monotonic() - since_s > for_s

    wait_for(still, "standing still", timeout_s=10)
    return seen


@contextmanager
def redis_of(door: FrontDoor) -> Iterator[Redis]:
    where = door.settings.redis
    with Redis(
        host=where.host, port=where.port, db=where.database, password=where.password.reveal()
    ) as redis:
        yield redis


def waiting_chunks(door: FrontDoor) -> int:
    with redis_of(door) as redis:
        return max(redis.llen(key) for key in redis.keys("tickgate:answer:*:chunks"))


def kept_keys(door: FrontDoor) -> set[str]:
    with redis_of(door) as redis:
        return {key.decode() for key in redis.keys("tickgate:answer:*")}


def table(form: str, content: bytes) -> pa.Table:
    if form == "arrow":
        return pa.ipc.open_stream(content).read_all()
    return pq.read_table(io.BytesIO(content))


def keys(form: str, content: bytes) -> list[tuple[int, str, int]]:
    """Return (time_msc, source, seq) of every tick."""
    names = ("time_msc", "source", "seq")
    if form == "json":
        rows = [json.loads(line) for line in content.splitlines()]
        return [(row["time_msc"], row["source"], row["seq"]) for row in rows]
    if form == "csv":
        text = csv.DictReader(io.StringIO(content.decode()))
        return [(int(row["time_msc"]), row["source"], int(row["seq"])) for row in text]
    return list(zip(*(table(form, content)[name].to_pylist() for name in names), strict=True))


def test_five_million_ticks_as_parquet_fit_in_memory_and_begin_at_once(
    http: httpx.Client, door: FrontDoor, tmp_path: Path
) -> None:
    file = tmp_path / "many.parquet"
    with (
        Peaks(gateway=door.gateway.pid, worker=door.worker.pid) as peaks,
        begun(http, "/v1/ticks/export?symbol=MANY&format=parquet") as (first_s, parts),
        file.open("wb") as out,
    ):
        out.writelines(parts)
    table = pq.read_table(file, columns=["seq", "time_msc", "bid"])
    assert table.num_rows == MANY
    assert table["seq"].to_numpy().tolist() == list(range(1, MANY + 1))
    assert table["time_msc"][-1].as_py() == DAY_MS + (MANY - 1) * STEP_MS
    assert max(peaks.bytes.values()) < BYTES_MAX, peaks.bytes
    assert first_s < FIRST_BYTE_S_MAX


def test_a_million_ticks_as_csv_fit_in_memory_and_leave_the_gateway_awake(
    http: httpx.Client, door: FrontDoor
) -> None:
    lines, slowest_s, stop = 0, 0.0, DAY_MS + (MILLION - 1) * STEP_MS
    with (
        door.client() as passer_by,
        Peaks(gateway=door.gateway.pid, worker=door.worker.pid) as peaks,
        begun(http, f"/v1/ticks/export?symbol=MANY&format=csv&to={stop}") as (first_s, parts),
    ):
        for number, part in enumerate(parts):
            lines += part.count(b"\n")
            if number % 100 == 0:
                asked_s = time.monotonic()
                assert passer_by.get("/livez").status_code == 200
                slowest_s = max(slowest_s, time.monotonic() - asked_s)
    assert lines == MILLION + 1
    assert max(peaks.bytes.values()) < BYTES_MAX, peaks.bytes
    assert first_s < FIRST_BYTE_S_MAX
    assert slowest_s < AWAKE_S_MAX


@pytest.mark.parametrize("form", ["csv", "parquet", "arrow"])
def test_an_export_is_written_as_a_page_is(http: httpx.Client, form: str) -> None:
    for symbol in ("EURUSD", "NOTHING"):
        url = f"?symbol={symbol}&format={form}"
        page, export = http.get("/v1/ticks" + url), http.get("/v1/ticks/export" + url)
        assert page.status_code == export.status_code == 200
        assert page.headers["content-type"] == export.headers["content-type"]
        if form == "csv":
            assert page.content == export.content
        else:
            assert table(form, page.content).equals(table(form, export.content))


def test_json_comes_as_a_tick_a_line(http: httpx.Client) -> None:
    answer = http.get("/v1/ticks/export?symbol=EURUSD")
    assert answer.headers["content-type"] == "application/x-ndjson"
    ticks = [json.loads(line) for line in answer.text.splitlines()]
    assert ticks == http.get("/v1/ticks?symbol=EURUSD").json()["items"]
    assert http.get("/v1/ticks/export?symbol=NOTHING").content == b""


def test_a_file_for_metatrader_has_its_columns_and_leaves_out_what_did_not_change(http: httpx.Client) -> None:
    answer = http.get("/v1/ticks/export?symbol=SOME&format=mt5")
    assert answer.headers["content-type"].startswith("text/tab-separated-values")
    assert answer.headers["content-disposition"] == 'attachment; filename="SOME.csv"'
    head, first, *rest = answer.text.splitlines()
    assert head == "<DATE>\t<TIME>\t<BID>\t<ASK>\t<LAST>\t<VOLUME>\t<FLAGS>"
    assert first.split("\t")[2:] == ["1.1", "1.10012", "", "", "6"]
    assert len(rest) == SOME - 1


def test_the_file_is_named_after_its_symbol(http: httpx.Client) -> None:
    answer = http.get("/v1/ticks/export", params={"symbol": 'a"/\r\nX: é', "format": "csv"})
    assert answer.headers["content-disposition"] == 'attachment; filename="a____X___.csv"'


@pytest.mark.parametrize("form", ["csv", "json", "arrow", "parquet"])
def test_more_ticks_of_one_millisecond_than_a_page_holds_come_once_and_in_order(
    http: httpx.Client, form: str
) -> None:
    assert keys(form, http.get(f"/v1/ticks/export?symbol=CROWD&format={form}").content) == [
        (DAY_MS + (seq > 10), "demo", seq) for seq in range(1, CROWD + 1)
    ]


@pytest.mark.parametrize("form", ["csv", "arrow"])
def test_ticks_of_two_sources_come_once_and_in_the_order_of_their_time(http: httpx.Client, form: str) -> None:
    got = keys(form, http.get(f"/v1/ticks/export?symbol=BOTH&format={form}").content)
    assert len(got) == 2 * BOTH
    assert got == sorted(set(got))


def test_bounds_are_inclusive_on_the_clock_that_is_named(http: httpx.Client) -> None:
    start, stop = DAY_MS + 100_000, DAY_MS + 200_000
    url = "/v1/ticks/export?symbol=SOME&format=csv"
    server = keys("csv", http.get(f"{url}&from={start}&to={stop}").content)
    assert (server[0][0], server[-1][0], len(server)) == (start, stop, 100_000 // STEP_MS + 1)
    true = keys("csv", http.get(f"{url}&clock=utc&from={start - OFFSET_MS}&to={stop - OFFSET_MS}").content)
    assert true == server
    assert len(keys("csv", http.get("/v1/ticks/export?symbol=EURUSD&format=csv&clock=utc").content)) == 3


def test_asked_for_its_head_it_sends_no_ticks(http: httpx.Client, door: FrontDoor) -> None:
    answer = http.head("/v1/ticks/export?symbol=MANY&format=parquet")
    assert (answer.status_code, answer.content) == (200, b"")
    assert "parquet" in answer.headers["content-type"]
    wait_for(lambda: measured(door, "tickgate_exports_running") == 0, "the export ending", timeout_s=3)


def test_another_tenants_ticks_are_not_there(http: httpx.Client) -> None:
    refused = http.get("/v1/ticks/export?symbol=SECRET&source=rival")
    assert (refused.status_code, refused.json()["code"]) == (404, "SOURCE_NOT_FOUND")
    assert http.get("/v1/ticks/export?symbol=SECRET").content == b""


def test_what_makes_no_sense_is_refused_before_it_begins(http: httpx.Client) -> None:
    for query, code in (("", "MISSING_PARAMETER"), ("symbol=A&limit=3", "UNKNOWN_PARAMETER")):
        answer = http.get(f"/v1/ticks/export?{query}")
        assert (answer.status_code, answer.json()["code"]) == (400, code)


def test_a_slow_reader_stops_the_worker_and_still_gets_everything(door: FrontDoor) -> None:
    with Reader(door, "/v1/ticks/export?symbol=MANY&format=csv") as reader:
        reader.take(1_000)
        written = stands_still(lambda: measured(door, "tickgate_export_bytes_total"))
        assert waiting_chunks(door) <= WINDOW_CHUNKS
        with Peaks(gateway=door.gateway.pid, worker=door.worker.pid) as peaks:
            taken = reader.take(50_000_000)
            stands_still(lambda: measured(door, "tickgate_export_bytes_total"))
        assert taken == 50_000_000
        assert measured(door, "tickgate_export_bytes_total") > written
        assert max(peaks.bytes.values()) < BYTES_MAX


def test_a_reader_that_goes_away_stops_the_worker(door: FrontDoor) -> None:
    before = kept_keys(door)
    with Reader(door, "/v1/ticks/export?symbol=MANY&format=parquet") as reader:
        reader.take(1_000)
        assert measured(door, "tickgate_exports_running") == 1
    wait_for(lambda: measured(door, "tickgate_exports_running") == 0, "the export ending", timeout_s=3)
    wait_for(
        lambda: all(key.endswith(":begun") for key in kept_keys(door) - before), "a clean end", timeout_s=3
    )


def test_with_all_places_taken_the_next_is_told_to_wait_and_reads_go_on(
    door: FrontDoor, http: httpx.Client
) -> None:
    url = "/v1/ticks/export?symbol=MANY&format=csv"
    with Reader(door, url) as first, Reader(door, url) as second:
        first.take(1_000)
        second.take(1_000)
        refused = http.get(url)
        assert (refused.status_code, refused.json()["code"]) == (503, "EXPORTS_BUSY")
        assert int(refused.headers["retry-after"]) > 0
        assert http.get("/v1/ticks?symbol=SOME&limit=1").status_code == 200
    wait_for(lambda: measured(door, "tickgate_exports_running") == 0, "both exports ending", timeout_s=3)


def test_a_worker_killed_on_the_way_breaks_the_answer(door: FrontDoor, http: httpx.Client) -> None:
    with begun(http, "/v1/ticks/export?symbol=MANY&format=csv") as (_, parts):
        next(parts)
        door.worker.stop(signal.SIGKILL)
        try:
            with pytest.raises(httpx.RemoteProtocolError):
                exhaust(parts)
        finally:
            door.worker.start()


def test_a_store_lost_on_the_way_breaks_the_answer_and_before_it_is_a_problem(
    door: FrontDoor, http: httpx.Client, store: Proxy
) -> None:
    with begun(http, "/v1/ticks/export?symbol=MANY&format=csv") as (_, parts):
        next(parts)
        store.weather.refusing = True
        store.cut()
        with pytest.raises(httpx.RemoteProtocolError):
            exhaust(parts)
    refused = http.get("/v1/ticks/export?symbol=MANY&format=csv")
    assert (refused.status_code, refused.json()["code"]) == (503, "STORE_UNAVAILABLE")
    store.weather.refusing = False
    wait_for(door.ready, "the store being back")
    assert http.get("/v1/ticks/export?symbol=EURUSD").status_code == 200
