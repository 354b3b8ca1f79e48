"""Market reads through the front door: exact values, pages, formats, tenants, refusals."""

import csv
import io
import math
import random
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pyarrow as pa
import pyarrow.parquet
import pytest

from tests import gateways
from tests.engines import House, wait_for
from tests.gateways import DAY_MS, FrontDoor, tick

SPREAD = 0.00012
MINUTE_MS = 60_000


def _random_ticks() -> list[dict[str, Any]]:
    """Two hours of ticks of a random walk: several a millisecond, two epochs, holes, and odd doubles."""
    dice = random.Random(7)
    rows, price, time_msc = [], 1.1, DAY_MS
    for seq in range(1, 2_001):
        time_msc += dice.choice((0, 0, 1, 250, 3_000, 12_000))
        price = math.nextafter(price + dice.uniform(-1e-4, 1e-4), 2.0)
        epoch = 1 if seq <= 1_000 else 2
        rows.append(
            tick(
                seq if epoch == 1 else seq - 1_000,
                time_msc,
                price,
                price + SPREAD,
                epoch=epoch,
                symbol="WALK",
                volume_real=1.0,
            )
        )
    return rows


WALK = _random_ticks()
FIXED = [
    tick(1, DAY_MS + 1_000, 0.1, 0.30000000000000004),
    tick(2, DAY_MS + 1_000, 1e-7, 5e-324),
    tick(3, DAY_MS + 1_000, 123456789.12345679, 1.7976931348623157e308),
    tick(4, DAY_MS + 2_000, 1.2, 1.3, utc_offset_s=None, backfill=1),
    tick(5, DAY_MS + 3_000, float("nan"), 1.0, quarantine="NOT_FINITE"),
    tick(6, DAY_MS + 3_500, 2.0, 1.0, quarantine="CROSSED"),
    tick(1, DAY_MS + 1_000, 7.0, 7.5, source="demo2"),
    tick(1, DAY_MS + 1_500, 9.0, 9.5, source="rival", symbol="SECRET"),
]


@pytest.fixture(scope="module")
def door(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    root = tmp_path_factory.mktemp("door")
    offset = [{**row, "seq": row["seq"] + 10} for row in WALK]
    with gateways.running(gateways.build(root, house, redis_database=3), FIXED + offset) as door:
        yield door


@pytest.fixture(scope="module")
def http(door: FrontDoor) -> Iterator[httpx.Client]:
    with door.signed_in() as http:
        yield http


def items(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


def paged(http: httpx.Client, url: str) -> list[list[dict[str, Any]]]:
    pages, cursor = [], ""
    while True:
        answer = http.get(url + (f"&cursor={cursor}" if cursor else ""))
        pages.append(items(answer))
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            return pages


def test_prices_come_back_as_the_doubles_that_were_stored(http: httpx.Client) -> None:
    got = items(http.get("/v1/ticks?symbol=EURUSD&source=demo"))
    assert [(row["bid"], row["ask"]) for row in got] == [(row["bid"], row["ask"]) for row in FIXED[:4]]


def test_a_tick_has_all_its_fields(http: httpx.Client) -> None:
    *_, last = items(http.get("/v1/ticks?symbol=EURUSD&source=demo"))
    assert last == {
        "symbol": "EURUSD",
        "source": "demo",
        "time_msc": DAY_MS + 2_000,
        "utc_ms": None,
        "bid": 1.2,
        "ask": 1.3,
        "last": 0,
        "volume": 0,
        "volume_real": 0,
        "flags": 6,
        "epoch": 1,
        "seq": 4,
        "backfill": True,
    }


def test_ticks_are_ordered_by_time_source_epoch_and_seq(http: httpx.Client) -> None:
    got = items(http.get("/v1/ticks?symbol=EURUSD"))
    keys = [(row["time_msc"], row["source"], row["epoch"], row["seq"]) for row in got]
    assert keys == sorted(keys)
    assert {row["source"] for row in got} == {"demo", "demo2"}


@pytest.mark.parametrize("limit", [1, 333, 1_000, 2_000, 2_001])
def test_pages_hold_every_tick_once(http: httpx.Client, limit: int) -> None:
    if limit == 1:
        pages = paged(http, "/v1/ticks?symbol=EURUSD&limit=1")
        assert [len(page) for page in pages] == [1] * 5
        return
    pages = paged(http, f"/v1/ticks?symbol=WALK&limit={limit}")
    got = [(row["epoch"], row["seq"], row["bid"]) for page in pages for row in page]
    assert got == [(row["epoch"], row["seq"] + 10, row["bid"]) for row in WALK]


@pytest.mark.parametrize("form", ["csv", "arrow", "parquet"])
def test_files_page_by_their_link_header_and_hold_every_tick_once(http: httpx.Client, form: str) -> None:
    url, bids = f"/v1/ticks?symbol=WALK&limit=700&format={form}", []
    while url:
        answer = http.get(url)
        assert answer.status_code == 200
        bids += _bids(form, answer.content)
        link = answer.links.get("next")
        assert ("X-Next-Cursor" in answer.headers) == (link is not None)
        url = link["url"] if link else ""
    assert bids == [row["bid"] for row in WALK]


def _bids(form: str, body: bytes) -> list[float]:
    if form == "csv":
        return [float(row["bid"]) for row in csv.DictReader(io.StringIO(body.decode()))]
    if form == "arrow":
        return list(pa.ipc.open_stream(body).read_all()["bid"].to_pylist())
    return list(pyarrow.parquet.read_table(io.BytesIO(body))["bid"].to_pylist())


def test_the_accept_header_chooses_the_format(http: httpx.Client) -> None:
    answer = http.get("/v1/ticks?symbol=EURUSD", headers={"Accept": "text/csv"})
    assert answer.headers["content-type"].startswith("text/csv")


def test_both_bounds_are_inclusive_in_either_notation(http: httpx.Client) -> None:
    got = items(http.get(f"/v1/ticks?symbol=EURUSD&source=demo&from={DAY_MS + 1_000}&to={DAY_MS + 2_000}"))
    assert len(got) == 4
    got = items(
        http.get(
            "/v1/ticks?symbol=EURUSD&source=demo&from=2024-10-04T00:00:02Z&to=2024-10-04T01:00:02%2B01:00"
        )
    )
    assert [row["seq"] for row in got] == [4]


def test_true_utc_leaves_out_ticks_whose_offset_is_unknown(http: httpx.Client) -> None:
    start = DAY_MS - 7_200_000
    got = items(http.get(f"/v1/ticks?symbol=EURUSD&source=demo&clock=utc&from={start}&to={start + 5_000}"))
    assert [row["seq"] for row in got] == [1, 2, 3]


def test_another_tenants_ticks_are_not_there(http: httpx.Client, door: FrontDoor) -> None:
    assert items(http.get("/v1/ticks?symbol=SECRET")) == []
    assert "SECRET" not in {row["symbol"] for row in items(http.get("/v1/symbols"))}
    assert http.get("/v1/ticks?symbol=SECRET&source=rival").status_code == 404
    with door.signed_in("rival") as rival:
        assert [row["bid"] for row in items(rival.get("/v1/ticks?symbol=SECRET"))] == [9.0]
        assert items(rival.get("/v1/ticks?symbol=EURUSD")) == []
        assert items(rival.get("/v1/quarantine")) == []


def test_symbols_have_their_span_and_size(http: httpx.Client) -> None:
    found = {(row["symbol"], row["source"]): row for row in items(http.get("/v1/symbols"))}
    walk = found["WALK", "demo"]
    assert (walk["ticks"], walk["first_time_msc"], walk["last_time_msc"]) == (
        len(WALK),
        WALK[0]["time_msc"],
        WALK[-1]["time_msc"],
    )


def test_quarantined_rows_are_shown_apart_with_their_reasons(http: httpx.Client) -> None:
    got = items(http.get("/v1/quarantine?symbol=EURUSD"))
    assert [(row["seq"], row["reason"], row["bid"]) for row in got] == [
        (5, "NOT_FINITE", "nan"),
        (6, "CROSSED", 2),
    ]


def test_quotes_come_from_the_store_while_the_fast_copy_is_empty(http: httpx.Client) -> None:
    got = items(http.get("/v1/quotes?symbols=EURUSD,NONE"))
    assert [(row["source"], row["seq"]) for row in got] == [("demo", 4), ("demo2", 1)]


def test_completeness_is_certified(http: httpx.Client) -> None:
    got = items(http.get("/v1/completeness?source=demo2"))
    assert [(row["source"], row["rows"], row["green"]) for row in got] == [("demo2", 1, True)]


INTERVALS = {"1s": 1_000, "1m": MINUTE_MS, "15m": 15 * MINUTE_MS, "1d": 1_440 * MINUTE_MS}


def _bars(step_ms: int, price: str) -> list[tuple[Any, ...]]:
    """Bars of WALK, naively."""
    bars: dict[int, list[dict[str, Any]]] = {}
    for row in WALK:
        bars.setdefault(row["time_msc"] // step_ms * step_ms, []).append(row)
    return [
        (
            time,
            rows[0][price],
            max(r[price] for r in rows),
            min(r[price] for r in rows),
            rows[-1][price],
            len(rows),
        )
        for time, rows in sorted(bars.items())
    ]


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("price", ["bid", "ask"])
def test_bars_are_those_of_the_ticks_in_their_order(http: httpx.Client, interval: str, price: str) -> None:
    pages = paged(http, f"/v1/bars?symbol=WALK&interval={interval}&price={price}&limit=100")
    got = [
        (row["time_ms"], row["open"], row["high"], row["low"], row["close"], row["tick_volume"])
        for page in pages
        for row in page
    ]
    assert got == _bars(INTERVALS[interval], price)
    assert all(len(page) == 100 for page in pages[:-1])


def test_bars_never_mix_sources(http: httpx.Client) -> None:
    got = items(http.get("/v1/bars?symbol=EURUSD&interval=1d"))
    assert [(row["source"], row["tick_volume"]) for row in got] == [("demo", 4), ("demo2", 1)]


@pytest.mark.parametrize(
    ("url", "code", "parameter"),
    [
        ("/v1/ticks", "MISSING_PARAMETER", "symbol"),
        ("/v1/ticks?symbol=A&colour=red", "UNKNOWN_PARAMETER", "colour"),
        ("/v1/ticks?symbol=A&symbol=B", "INVALID_PARAMETER", "symbol"),
        ("/v1/ticks?symbol=A&limit=0", "INVALID_PARAMETER", "limit"),
        ("/v1/ticks?symbol=A&limit=50001", "INVALID_PARAMETER", "limit"),
        ("/v1/ticks?symbol=A&limit=ten", "INVALID_PARAMETER", "limit"),
        ("/v1/ticks?symbol=A&from=yesterday", "INVALID_PARAMETER", "from"),
        ("/v1/ticks?symbol=A&from=2024-01-01T00:00:00", "INVALID_PARAMETER", "from"),
        ("/v1/ticks?symbol=A&from=2024-13-01T00:00:00Z", "INVALID_PARAMETER", "from"),
        ("/v1/ticks?symbol=A&format=xml", "INVALID_PARAMETER", "format"),
        ("/v1/ticks?symbol=A&start_ms=1", "UNKNOWN_PARAMETER", "start_ms"),
        ("/v1/ticks?symbol=" + "A" * 65, "INVALID_PARAMETER", "symbol"),
        ("/v1/bars?symbol=A&interval=2m", "INVALID_PARAMETER", "interval"),
        ("/v1/bars?symbol=A&price=best", "INVALID_PARAMETER", "price"),
        ("/v1/quotes", "MISSING_PARAMETER", "symbols"),
        ("/v1/quotes?symbols=,", "INVALID_PARAMETER", "symbols"),
        ("/v1/quotes?symbols=" + ",".join("A" * 101), "INVALID_PARAMETER", "symbols"),
        ("/v1/completeness?day=2024-02-30", "INVALID_PARAMETER", "day"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    http: httpx.Client, url: str, code: str, parameter: str
) -> None:
    answer = http.get(url)
    body = answer.json()
    assert (answer.status_code, body["code"]) == (400, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["parameter"] for error in body["errors"]] == [parameter]
    assert body["detail"].startswith(f"{parameter}: ")


@pytest.mark.parametrize(
    "cursor", ["x", "AAAA", "lM8AAAGSVNOD6KRkZW1v", "ks8AAAGSVGWjAKRkZW1v", "%00", "' or 1"]
)
def test_a_cursor_of_ones_own_making_is_refused(http: httpx.Client, cursor: str) -> None:
    answer = http.get("/v1/ticks", params={"symbol": "WALK", "cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) == (400, "BAD_CURSOR"), answer.text


@pytest.mark.parametrize("text", ["' or 1=1 --", "{symbol:String}", "\\", "%", "ü€😀", "a\nb", "\t"])
def test_a_symbol_is_only_ever_a_value(http: httpx.Client, text: str) -> None:
    assert items(http.get("/v1/ticks", params={"symbol": text})) == []
    assert items(http.get("/v1/bars", params={"symbol": text})) == []
    assert items(http.get("/v1/quotes", params={"symbols": text})) == []


@pytest.mark.parametrize("moment", [-(10**18) + 1, 10**18 - 1, 0])
@pytest.mark.parametrize("clock", ["server", "utc"])
@pytest.mark.parametrize(
    "url", ["/v1/ticks?symbol=WALK", "/v1/bars?symbol=WALK", "/v1/quarantine?symbol=WALK"]
)
def test_far_away_times_are_empty_not_errors(http: httpx.Client, url: str, clock: str, moment: int) -> None:
    assert items(http.get(f"{url}&from={moment}&to={moment}&clock={clock}")) == []


def test_an_answer_that_outlasts_its_caller_becomes_a_job_of_its_tenant(
    http: httpx.Client, door: FrontDoor
) -> None:
    answer = http.get("/v1/ticks?symbol=EURUSD", headers={"Prefer": "wait=0"})
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "wait=0")
    location = answer.headers["location"]

    def finished() -> Any:
        state = http.get(location).json()
        return state if state["status"] == "finished" else None

    state = wait_for(finished, "the job being finished", 10)
    assert state["answer"] == http.get("/v1/ticks?symbol=EURUSD").json()
    assert http.get(state["answer_url"]).json() == state["answer"]
    with door.signed_in("rival") as rival:
        refused = rival.get(location)
        assert (refused.status_code, refused.json()["code"]) == (404, "JOB_NOT_FOUND")
        assert rival.get(state["answer_url"]).status_code == 404


def test_a_path_or_method_that_is_not_there_is_a_problem_too(http: httpx.Client) -> None:
    missing, refused = http.get("/v1/nothing"), http.post("/v1/ticks")
    assert (missing.status_code, missing.json()["code"]) == (404, "NO_SUCH_ROUTE")
    assert (refused.status_code, refused.json()["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert "GET" in refused.headers["allow"]


def test_a_callers_trace_is_carried_on_and_answered(http: httpx.Client, door: FrontDoor) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    parent = f"00-{trace_id}-00f067aa0ba902b7-01"
    answer = http.get("/v1/ticks?symbol=EURUSD&source=nobody", headers={"traceparent": parent})
    assert answer.headers["x-request-id"] == answer.json()["trace_id"] == trace_id
    assert answer.headers["traceresponse"].split("-")[1] == trace_id
    for log in (door.gateway.log, door.worker.log):
        wait_for(lambda log=log: trace_id in log.read_text(), f"{trace_id} in {log.name}", 5)


@pytest.mark.parametrize("parent", ["", "garbage", "00-" + "0" * 32 + "-00f067aa0ba902b7-01"])
def test_a_malformed_trace_is_replaced(http: httpx.Client, parent: str) -> None:
    answer = http.get("/livez", headers={"traceparent": parent})
    assert len(answer.headers["x-request-id"]) == 32
    assert answer.headers["x-request-id"] != "0" * 32


def test_every_answer_carries_the_security_headers(http: httpx.Client) -> None:
    for url in ("/v1/symbols", "/v1/nothing", "/livez"):
        headers = http.get(url).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "default-src 'none'" in headers["content-security-policy"]


def test_metrics_name_routes_not_paths(http: httpx.Client) -> None:
    http.get("/v1/jobs/0123456789abcdef:77")
    text = http.get("/metrics").text
    assert 'route="/v1/jobs/{id}"' in text
    assert "0123456789abcdef" not in text
    assert urlsplit(str(http.base_url)).port is not None


def test_metrics_are_not_for_the_world(http: httpx.Client) -> None:
    answer = http.get("/metrics", headers={"X-Forwarded-For": "203.0.113.9"})
    assert (answer.status_code, answer.json()["code"]) == (403, "OPERATORS_ONLY")
