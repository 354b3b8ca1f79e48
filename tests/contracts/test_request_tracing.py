"""One request, one trace: in the answer, the access log, the worker's log, PostgreSQL and ClickHouse."""

import asyncio
import json
import secrets
import threading
from collections.abc import Iterator
from typing import Any

import asyncpg
import httpx
import pytest

from core.adapters.clickhouse.client import open_client
from core.telemetry import tracing
from tests import gateways
from tests.engines import House, wait_for
from tests.gateways import DAY_MS, SECRET, FrontDoor, basic, tick

SPAN = "00f067aa0ba902b7"


@pytest.fixture(scope="module")
def door(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    root = tmp_path_factory.mktemp("tracing")
    rows = [tick(1, DAY_MS, 1.1, 1.2)]
    with gateways.running(gateways.build(root, house, redis_database=8), rows) as door:
        yield door


@pytest.fixture(scope="module")
def http(door: FrontDoor) -> Iterator[httpx.Client]:
    with door.signed_in() as http:
        yield http


@pytest.fixture
def trace_id() -> str:
    return secrets.token_hex(16)


def parent(trace_id: str) -> dict[str, str]:
    return {"traceparent": f"00-{trace_id}-{SPAN}-01"}


def lines(door: FrontDoor, trace_id: str, event: str) -> list[dict[str, Any]]:
    written = [line for line in door.gateway.log.read_text().splitlines() if trace_id in line]
    return [line for line in map(json.loads, written) if line["event"] == event]


def accessed(door: FrontDoor, trace_id: str) -> dict[str, Any]:
    (line,) = wait_for(lambda: lines(door, trace_id, "http.answered"), "the access log's line", 5)
    return dict(line)


def test_every_request_is_one_line_of_the_access_log(
    http: httpx.Client, door: FrontDoor, trace_id: str
) -> None:
    answer = http.get("/v1/ticks?symbol=EURUSD", headers=parent(trace_id))
    line = accessed(door, trace_id)
    assert {name: line[name] for name in ("method", "route", "status", "bytes", "tenant", "subject")} == {
        "method": "GET",
        "route": "/v1/ticks",
        "status": 200,
        "bytes": len(answer.content),
        "tenant": "demo",
        "subject": "demo",
    }
    assert answer.headers["traceresponse"] == f"00-{trace_id}-{line['span_id']}-01"
    assert line["span_id"] != SPAN
    assert 0 < line["ms"] < 10_000


def test_the_job_a_request_asked_for_is_a_line_of_the_workers_log(
    http: httpx.Client, door: FrontDoor, trace_id: str
) -> None:
    http.get("/v1/ticks?symbol=EURUSD", headers=parent(trace_id))
    written = wait_for(
        lambda: [line for line in door.worker.log.read_text().splitlines() if trace_id in line], "a line", 5
    )
    line = json.loads(written[-1])
    assert {name: line[name] for name in ("event", "function", "tenant", "outcome", "attempt")} == {
        "event": "job.ended",
        "function": "market.ticks",
        "tenant": "demo",
        "outcome": "finished",
        "attempt": 1,
    }
    assert line["span_id"] != accessed(door, trace_id)["span_id"]


def test_neither_path_nor_query_gets_into_the_access_log(door: FrontDoor, trace_id: str) -> None:
    with door.client() as http:
        http.get(f"/v1/nothing/{SECRET}?token={SECRET}", headers=parent(trace_id))
    line = accessed(door, trace_id)
    assert (line["route"], line["status"], line.get("tenant", "")) == ("unmatched", 404, "")
    assert SECRET not in json.dumps(line)


def test_an_error_its_log_line_and_its_answer_have_the_same_trace(
    http: httpx.Client, door: FrontDoor, trace_id: str
) -> None:
    answer = http.get("/v1/ticks?symbol=A&source=nobody", headers=parent(trace_id))
    assert answer.json()["trace_id"] == answer.headers["x-request-id"] == trace_id
    (line,) = lines(door, trace_id, "error.told_caller")
    assert line["code"] == answer.json()["code"] == "SOURCE_NOT_FOUND"
    wait_for(lambda: trace_id in door.worker.log.read_text(), "the trace in the worker's log", 5)


def test_a_request_waiting_in_postgres_shows_its_trace_there(
    http: httpx.Client, door: FrontDoor, trace_id: str
) -> None:
    answers: list[httpx.Response] = []
    asking = threading.Thread(
        target=lambda: answers.append(http.get("/v1/ticks?symbol=EURUSD", headers=parent(trace_id)))
    )

    async def watch() -> bool:
        postgres = door.settings.postgres
        where = {"host": postgres.host, "port": postgres.port, "user": postgres.user}
        where |= {"password": postgres.password.reveal(), "database": postgres.database}
        locker, looker = await asyncpg.connect(**where), await asyncpg.connect(**where)
        try:
            async with locker.transaction():
                await locker.execute("lock table sources in access exclusive mode")
                asking.start()
                async with asyncio.timeout(5):
                    while not await looker.fetchval(
                        "select count(*) from pg_stat_activity where application_name = $1",
                        f"tickgate {trace_id}",
                    ):
                        await asyncio.sleep(0.02)
        finally:
            await locker.close()
            await looker.close()
        return True

    assert asyncio.run(watch())
    asking.join(10)
    assert answers[0].status_code == 200


async def test_a_query_in_clickhouse_is_found_by_its_trace(door: FrontDoor, trace_id: str) -> None:
    async with open_client(door.settings, {}) as clickhouse:
        trace = tracing.start(f"00-{trace_id}-{SPAN}-01")
        ask = "select query_id from system.processes where startsWith(query_id, {trace:String})"
        answers = await asyncio.gather(*(clickhouse.rows(ask, {"trace": trace_id}) for _ in range(3)))
    found = {row[0] for rows in answers for row in rows}
    assert found
    assert all(query_id.startswith(f"{trace_id}-{trace.span_id}-") for query_id in found)


def test_two_parents_are_none(door: FrontDoor, trace_id: str) -> None:
    one = ("traceparent", f"00-{trace_id}-{SPAN}-01")
    with door.client() as http:
        answer = http.get("/livez", headers=[one, one])
    assert answer.headers["x-request-id"] != trace_id


@pytest.mark.parametrize(
    "leaked",
    [
        SECRET,
        basic("demo", SECRET),
        "Bearer abcdefghijklmnopqrst",
        "eyJhbGciOiJFZDI1NTE5In0.eyJpc3MiOiJ0aWNrZ2F0ZSJ9.x",
        "tgk_0123456789ab_0123456789abcdef",
        "tgr_0123456789abcdef0123",
    ],
)
def test_a_leak_would_be_found(leaked: str) -> None:
    assert gateways.CREDENTIAL.search(json.dumps({"event": "x", "error": f"it said {leaked}"}))


@pytest.mark.parametrize("accept", ["application/json", "text/csv"])
def test_what_callers_send_as_secrets_is_in_no_log(door: FrontDoor, accept: str, trace_id: str) -> None:
    """The door itself looks through the logs of every run when it closes; this run has something to find."""
    token = door.token()
    form = {"grant_type": "client_credentials", "client_secret": SECRET}
    with door.client() as http:
        for authorization in (
            f"Bearer {token}",
            f"Bearer {token[:-4]}AAAA",
            f"Basic {token}",
            basic("x", SECRET),
        ):
            headers = {
                "Authorization": authorization,
                "X-API-Key": "tgk_" + SECRET,
                "Idempotency-Key": "tgk_" + SECRET,
                "Cookie": f"session={token}",
                "Accept": accept,
                **parent(trace_id),
            }
            for url in ("/v1/ticks?symbol=A", f"/v1/ticks?symbol={token}", f"/v1/ticks?access_token={token}"):
                http.get(url, headers=headers)
            http.get(f"/v1/ticks?symbol=A&source={token[:63]}", headers=headers)
            http.get(f"/v1/jobs/{token[:60]}", headers=headers)
            http.post("/oauth/token", data=form | {"client_id": token}, headers=headers)
            http.post("/oauth/token", data=form, headers=headers)
    gateways.assert_no_secret_in(door)
