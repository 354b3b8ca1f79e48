"""Sources over the API, with gateway, worker and bridge: a token is shown once, opens the bridge, and ends at once."""

import asyncio
import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from core.adapters.postgres.pool import open_pool
from core.messages import wire
from core.messages.wire import FrameType, NackCode, TallyFrame, TallyItem
from tests import gateways
from tests.bridges import DAY_MS, Bridge, Wire, build_bridge, dial, make_rows
from tests.connectors import SIMULATED, build_connector
from tests.engines import House, wait_for
from tests.gateways import FrontDoor

LEASE_S = 4.0


@dataclass
class Place:
    """A front door and a bridge on the same stores."""

    door: FrontDoor
    bridge: Bridge


@pytest.fixture(scope="module")
def place(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    door = gateways.build(tmp_path_factory.mktemp("sources"), house, redis_database=11)
    with gateways.running(door, []) as door:
        bridge = build_bridge(door.settings, tmp_path_factory.mktemp("bridge"), lease_ttl_s=LEASE_S)
        bridge.start()
        try:
            bridge.wait_ready()
            yield Place(door, bridge)
        finally:
            bridge.stop()
        assert gateways.CREDENTIAL.search(bridge.log.read_text()) is None


@pytest.fixture(scope="module")
def ours(place: Place) -> Iterator[httpx.Client]:
    with place.door.signed_in() as http:
        yield http


@pytest.fixture(scope="module")
def theirs(place: Place) -> Iterator[httpx.Client]:
    with place.door.signed_in("rival") as http:
        yield http


def post(http: httpx.Client, path: str, key: str = "", **body: Any) -> httpx.Response:
    headers = {"Idempotency-Key": key or str(uuid.uuid4())}
    return http.post(path, json=body, headers=headers) if body else http.post(path, headers=headers)


def made(http: httpx.Client, **changes: Any) -> dict[str, Any]:
    answer = post(http, "/v1/sources", **{"label": "feed", **changes})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def shown(http: httpx.Client, name: str) -> dict[str, Any]:
    answer = http.get(f"/v1/sources/{name}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def who(source: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"source": source["name"], "token": source["token"], **changes}


def test_a_token_is_shown_once(ours: httpx.Client) -> None:
    source = made(ours, title="Live")
    token = source.pop("token")
    assert token.startswith("tgs_")
    assert (source["title"], source["closed_at_ms"], source["connected"]) == ("Live", None, False)
    assert shown(ours, source["name"]) == source
    assert source in ours.get("/v1/sources", params={"limit": 500}).json()["items"]


def test_a_name_begins_with_its_label_and_is_no_other_sources(
    ours: httpx.Client, theirs: httpx.Client
) -> None:
    names = [made(http, label="demo")["name"] for http in (ours, ours, theirs)]
    assert len(set(names)) == 3
    assert all(name.startswith("demo-") for name in names)


def test_a_request_sent_again_makes_one_source_and_shows_the_same_token(ours: httpx.Client) -> None:
    key = str(uuid.uuid4())
    first, again = (post(ours, "/v1/sources", key, label="twice") for _ in range(2))
    assert (first.json(), first.headers["location"]) == (again.json(), again.headers["location"])
    assert again.headers["idempotency-replayed"] == "true"
    names = [item["name"] for item in ours.get("/v1/sources", params={"limit": 500}).json()["items"]]
    assert len([name for name in names if name.startswith("twice-")]) == 1


async def test_no_token_is_stored_anywhere(place: Place, ours: httpx.Client) -> None:
    source = made(ours)
    rotated = post(ours, f"/v1/sources/{source['name']}/token").json()
    tokens = [source["token"], rotated["token"]]
    assert tokens[0] != tokens[1]
    for text in await everything_in_the_ledger(place):
        for token in tokens:
            assert token not in text
            assert token.encode().hex() not in text


async def everything_in_the_ledger(place: Place) -> list[str]:
    async with open_pool(place.door.settings, {}) as postgres, postgres.acquire() as connection:
        tables = await connection.fetch("select tablename from pg_tables where schemaname = 'public'")
        found = []
        for table in tables:
            rows = await connection.fetch(f"select t::text as row from {table['tablename']} t")
            found += [row["row"] for row in rows]
    assert any("idempotency" in table["tablename"] for table in tables)
    return found


async def test_a_connector_with_the_token_stores_ticks_and_is_seen(place: Place, ours: httpx.Client) -> None:
    source = made(ours)
    async with dial(place.bridge) as client:
        await client.resume(**who(source, install="i-1"))
        await stored_and_tallied(client, 10)
        wait_for(lambda: shown(ours, source["name"])["last_seq"] == 10, "the tally being known")
        state = shown(ours, source["name"])
        assert (state["connected"], state["epoch"], state["install"]) == (True, 1, "i-1")
        assert abs(state["last_seen_at_ms"] / 1_000 - time.time()) < LEASE_S
    wait_for(lambda: not shown(ours, source["name"])["connected"], "the connector being gone")


async def stored_and_tallied(client: Wire, count: int) -> None:
    rows = make_rows(count)
    await client.batch(1, rows)
    await client.acknowledged(count)
    day = int(rows["time_msc"][0] // DAY_MS)
    item = TallyItem(symbol="EURUSD", day=day, rows=count, first_seq=1, last_seq=count, checksum="00")
    await client.socket.send(wire.encode_json(FrameType.TALLY, TallyFrame(tallies=[item])))


async def test_a_rotation_cuts_the_connected_and_lets_the_new_token_go_on(
    place: Place, ours: httpx.Client
) -> None:
    source = made(ours)
    async with dial(place.bridge) as client:
        await client.resume(**who(source))
        await client.batch(1, make_rows(10))
        await client.acknowledged(10)
        answer = post(ours, f"/v1/sources/{source['name']}/token")
        assert answer.status_code == 200, answer.text
        await cut_within_a_lease(client)
    await refused(place.bridge, source)
    rotated = answer.json()
    async with dial(place.bridge) as client:
        resume = await client.resume(**who(rotated))
        assert (resume.epoch, resume.next_seq) == (1, 11)
        assert await still_connected(client)


def test_a_connector_goes_on_without_a_hole_once_it_has_the_new_token(
    place: Place, ours: httpx.Client, tmp_path: Path
) -> None:
    source = made(ours)
    connector = build_connector(
        place.bridge.port, tmp_path, SIMULATED, {}, source=source["name"], token=source["token"]
    )
    connector.start()
    try:
        wait_for(lambda: connector.status().get("acked_seq"), "ticks being stored")
        rotated = post(ours, f"/v1/sources/{source['name']}/token").json()
        wait_for(lambda: connector.status().get("problem"), "the connector being cut off")
        made_meanwhile = connector.status()["next_seq"]
        connector.stop()
        connector.environment["TICKGATE_CONNECTOR_TOKEN"] = rotated["token"]
        connector.start()
        wait_for(lambda: connector.status().get("acked_seq", 0) >= made_meanwhile, "the connector going on")
    finally:
        connector.stop()
    assert connector.status()["epoch"] == 1
    certificates = ours.get("/v1/completeness", params={"source": source["name"]}).json()["items"]
    assert [certificate["problems"] for certificate in certificates] == [[]]


async def test_closing_cuts_the_connected_and_keeps_its_ticks(place: Place, ours: httpx.Client) -> None:
    source = made(ours)
    async with dial(place.bridge) as client:
        await client.resume(**who(source))
        await client.batch(1, make_rows(10))
        await client.acknowledged(10)
        assert ours.delete(f"/v1/sources/{source['name']}").status_code == 204
        await cut_within_a_lease(client)
    await refused(place.bridge, source)
    page = ours.get("/v1/ticks", params={"symbol": "EURUSD", "source": source["name"]})
    assert len(page.json()["items"]) == 10
    wait_for(lambda: not shown(ours, source["name"])["connected"], "its lease being let go")
    assert shown(ours, source["name"])["closed_at_ms"] is not None


async def cut_within_a_lease(client: Wire) -> None:
    async with asyncio.timeout(LEASE_S):
        assert (await client.nack()).code is NackCode.UNAUTHORIZED
        assert await client.close_code() == wire.CLOSE_CODES[NackCode.UNAUTHORIZED]


async def refused(bridge: Bridge, source: dict[str, Any]) -> None:
    async with dial(bridge) as client:
        await client.hello(**who(source))
        assert (await client.nack()).code is NackCode.UNAUTHORIZED


async def still_connected(client: Wire) -> bool:
    """Whether a connector is there after its lease has been renewed once."""
    ends_at_s = time.monotonic() + LEASE_S / 2
    while time.monotonic() < ends_at_s:
        await client.socket.send(wire.encode_json(FrameType.PING))
        await client.frame(FrameType.PONG)
        await asyncio.sleep(0.2)
    return True


def test_a_closed_source_takes_neither_token_nor_title(ours: httpx.Client) -> None:
    name = made(ours)["name"]
    for _ in range(2):
        assert ours.delete(f"/v1/sources/{name}").status_code == 204
    answers = [
        post(ours, f"/v1/sources/{name}/token"),
        ours.put(f"/v1/sources/{name}", json={"title": "x"}, headers={"If-Match": "*"}),
    ]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(409, "SOURCE_CLOSED")] * 2


def test_a_title_is_replaced_where_nobody_has_written_since(ours: httpx.Client) -> None:
    source = made(ours, title="before")
    path, tag = f"/v1/sources/{source['name']}", f'"{source["version"]}"'
    missing = ours.put(path, json={"title": "x"})
    assert (missing.status_code, missing.json()["code"]) == (428, "IF_MATCH_MISSING")
    changed = ours.put(path, json={"title": "after"}, headers={"If-Match": tag})
    assert (changed.status_code, changed.json()["title"]) == (200, "after")
    assert changed.headers["etag"] == f'"{changed.json()["version"]}"' != tag
    late = ours.put(path, json={"title": "late"}, headers={"If-Match": tag})
    assert (late.status_code, late.json()["code"]) == (412, "VERSION_MISMATCH")
    assert shown(ours, source["name"])["title"] == "after"


def test_a_foreign_name_is_answered_like_one_that_never_was(ours: httpx.Client, theirs: httpx.Client) -> None:
    name = made(theirs)["name"]
    for path in (f"/v1/sources/{name}", "/v1/sources/never-was", "/v1/sources/No%20Name"):
        answers = [
            ours.get(path),
            ours.put(path, json={"title": "x"}, headers={"If-Match": "*"}),
            post(ours, f"{path}/token"),
            ours.delete(path),
        ]
        assert {(one.status_code, one.json()["code"]) for one in answers} == {(404, "SOURCE_NOT_FOUND")}
    assert name not in ours.get("/v1/sources", params={"limit": 500}).text
    assert shown(theirs, name)["closed_at_ms"] is None


def test_pages_of_sources_follow_each_other_without_gap_or_overlap(theirs: httpx.Client) -> None:
    for _ in range(3):
        made(theirs, label="page")
    everything = [item["name"] for item in theirs.get("/v1/sources").json()["items"]]
    paged: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        page = theirs.get("/v1/sources", params=query).json()
        paged += [item["name"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert paged == everything == sorted(everything)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"label": ""},
        {"label": "Upper"},
        {"label": "-first"},
        {"label": "a" * 41},
        {"label": "a/b"},
        {"label": "feed", "title": "x" * 121},
        {"label": "feed", "title": "two\nlines"},
        {"label": "feed", "token": "my own"},
        {"label": "feed", "name": "demo"},
    ],
    ids=json.dumps,
)
def test_a_wish_that_does_not_fit_is_refused(ours: httpx.Client, body: dict[str, Any]) -> None:
    answer = ours.post("/v1/sources", json=body, headers={"Idempotency-Key": str(uuid.uuid4())})
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_BODY")
