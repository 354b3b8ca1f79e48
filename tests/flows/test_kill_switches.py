"""Kill switches, limits and trading states: what they stop, how soon, and that it is written down."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from core.infrastructure.central_hub import open_hub
from tests.engines import House, wait_for
from tests.trading_floors import ASK, BID, Floor, running_floor

EFFECTIVE_S_MAX = 1.0


@pytest.fixture(scope="module")
def floor(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Floor]:
    with running_floor(tmp_path_factory.mktemp("switches"), house) as running:
        yield running


def codes(order: dict[str, Any]) -> list[str]:
    return [denial["code"] for denial in order["denials"]]


@pytest.mark.parametrize(
    ("switch", "price"),
    [
        ({"scope": "tenant"}, "1.081"),
        ({"scope": "account", "id": "paper"}, "1.084"),
        ({"scope": "strategy", "id": "trend"}, "1.087"),
    ],
)
def test_a_switch_denies_what_comes_and_takes_back_what_works(
    floor: Floor, switch: dict[str, str], price: str
) -> None:
    limit = {"type": "limit", "price": price, "strategy": "trend"}
    working = floor.submit(**limit)
    floor.reaches(working["id"], "ACCEPTED")
    engaged = floor.post("/v1/kill-switches", {**switch, "reason": "enough"})
    assert engaged.status_code == 201, engaged.text
    began_s = time.monotonic()
    denied = floor.submit(**{**limit, "price": f"{price}1"})
    assert (denied["state"], codes(denied)) == ("DENIED", ["TRADING_HALTED"])
    assert floor.ended(working["id"])["state"] == "CANCELED"
    assert time.monotonic() - began_s < EFFECTIVE_S_MAX + 1
    released = floor.http.delete(f"/v1/kill-switches/{engaged.json()['id']}")
    assert (released.status_code, released.json()["engaged"]) == (200, False)
    again = floor.submit(**{**limit, "price": f"{price}2"})
    assert again["state"] == "QUEUED"
    assert floor.post(f"/v1/orders/{again['id']}/cancel").status_code in {202, 409}


@pytest.mark.parametrize("level", ["global", "tenant", "account", "strategy"])
def test_a_switch_of_every_level_takes_hold_of_what_waits_and_what_works(floor: Floor, level: str) -> None:
    price = {"global": "1.0905", "tenant": "1.0915", "account": "1.0925", "strategy": "1.0935"}[level]
    works = floor.submit(type="limit", price=price, strategy="drill")
    floor.reaches(works["id"], "ACCEPTED")
    with paused(floor):
        waits = floor.submit(volume="0.17", strategy="drill", valid_for_ms=60_000)
        assert waits["state"] == "QUEUED"
        switch = engaged(floor, level)
        denied = floor.submit(volume="0.18", strategy="drill")
        assert codes(denied) == ["TRADING_HALTED"]
    began_s = time.monotonic()
    kept_back, taken_back = floor.ended(waits["id"]), floor.ended(works["id"])
    assert time.monotonic() - began_s < EFFECTIVE_S_MAX + 1
    assert (kept_back["state"], codes(kept_back)) == ("DENIED", ["TRADING_HALTED"])
    assert kept_back["sent_at_ms"] is None
    assert taken_back["state"] == "CANCELED"
    tickgate(floor, "resume", switch)


def test_while_switches_cannot_be_read_nothing_is_kept_and_nothing_sent(floor: Floor) -> None:
    with paused(floor):
        waits = floor.submit(volume="0.19", valid_for_ms=60_000)
        assert waits["state"] == "QUEUED"
        asked(floor, "revoke select on kill_switches from tickgate_tenant")
    try:
        newest = floor.http.get("/v1/orders", params={"limit": 1}).json()["items"][0]["id"]
        body = {"account": "paper", "symbol": "EURUSD", "side": "buy", "type": "market", "volume": "0.2"}
        refused = floor.post("/v1/orders", body)
        assert refused.status_code >= 500
        assert floor.http.get("/v1/orders", params={"limit": 1}).json()["items"][0]["id"] == newest
        wait_for(lambda: tries(floor, waits["id"]) > 0, "a worker having tried to send it")
        assert floor.order(waits["id"])["sent_at_ms"] is None
    finally:
        asked(floor, "grant select on kill_switches to tickgate_tenant")
    floor.post(f"/v1/orders/{waits['id']}/cancel")
    floor.ended(waits["id"])


def test_a_switch_of_something_else_stops_nothing(floor: Floor) -> None:
    engaged = floor.post("/v1/kill-switches", {"scope": "account", "id": "hedged", "reason": "that one"})
    assert floor.submit(volume="0.04")["state"] == "QUEUED"
    floor.http.delete(f"/v1/kill-switches/{engaged.json()['id']}")


def test_a_tenant_cannot_halt_everybody(floor: Floor) -> None:
    answer = floor.post("/v1/kill-switches", {"scope": "global", "reason": "all of them"})
    assert (answer.status_code, answer.json()["code"]) == (403, "OPERATORS_ONLY")


def test_a_halted_state_takes_back_what_works_and_leaves_positions(floor: Floor) -> None:
    assert floor.ended(floor.submit(volume="0.12")["id"])["state"] == "FILLED"
    working = floor.submit(type="limit", price="1.0815")
    floor.reaches(working["id"], "ACCEPTED")
    before = floor.http.get("/v1/positions").json()["items"]
    path = "/v1/trading-states/account/paper"
    assert floor.http.put(path, json={"state": "HALTED", "reason": "stop"}).status_code == 200
    began_s = time.monotonic()
    assert floor.ended(working["id"])["state"] == "CANCELED"
    assert time.monotonic() - began_s < EFFECTIVE_S_MAX + 1
    assert floor.http.get("/v1/positions").json()["items"] == before != []
    assert floor.http.put(path, json={"state": "ACTIVE", "reason": "go on"}).status_code == 200


def test_while_reducing_what_protects_a_position_goes_on_working(floor: Floor) -> None:
    assert floor.ended(floor.submit(volume="0.13")["id"])["state"] == "FILLED"
    protects = floor.submit(type="stop", side="sell", stop_price="1.0825", volume="0.13")
    grows = floor.submit(type="limit", price="1.0835", volume="0.13")
    for one in (protects, grows):
        floor.reaches(one["id"], "ACCEPTED")
    path = "/v1/trading-states/account/paper"
    assert floor.http.put(path, json={"state": "REDUCING", "reason": "slowly"}).status_code == 200
    assert floor.ended(grows["id"])["state"] == "CANCELED"
    assert floor.order(protects["id"])["state"] == "ACCEPTED"
    assert floor.http.put(path, json={"state": "ACTIVE", "reason": "go on"}).status_code == 200
    floor.post(f"/v1/orders/{protects['id']}/cancel")
    assert floor.ended(protects["id"])["state"] == "CANCELED"


def test_a_state_that_only_reduces_lets_no_position_grow(floor: Floor) -> None:
    path = "/v1/trading-states/account/paper"
    assert floor.http.put(path, json={"state": "REDUCING", "reason": "calm down"}).status_code == 200
    assert "REDUCING_ONLY" in codes(floor.submit(volume="0.06"))
    assert floor.http.put(path, json={"state": "ACTIVE", "reason": "go on"}).status_code == 200
    assert floor.submit(volume="0.06")["state"] == "QUEUED"


def test_limits_are_versioned_and_the_strictest_holds(floor: Floor) -> None:
    path = "/v1/risk-limits/symbol/EURUSD"
    first = floor.http.put(path, json={"volume_max": "0.5"}, headers={"If-Match": '"0"'})
    assert first.status_code == 200, first.text
    stale = floor.http.put(path, json={"volume_max": "9"}, headers={"If-Match": '"0"'})
    assert (stale.status_code, stale.json()["code"]) == (412, "VERSION_MISMATCH")
    denied = floor.submit(volume="0.6")
    assert codes(denied) == ["VOLUME_LIMIT"]
    assert denied["limits_version"] == first.json()["version"]
    wide = floor.http.put(path, json={}, headers={"If-Match": first.headers["etag"]})
    assert wide.status_code == 200
    assert [one["limits"] for one in floor.http.get(f"{path}/versions").json()["items"]] == [
        {},
        {"volume_max": "0.5"},
    ]
    assert floor.submit(volume="0.6")["state"] == "QUEUED"


def test_a_limit_that_makes_no_sense_is_refused(floor: Floor) -> None:
    answer = floor.http.put("/v1/risk-limits/tenant/-", json={"volume_max": "-1"}, headers={"If-Match": "*"})
    assert answer.status_code == 400
    unknown = floor.http.put("/v1/risk-limits/tenant/-", json={"courage_max": 1}, headers={"If-Match": "*"})
    assert unknown.status_code == 400


def test_losses_halt_an_account_until_somebody_lets_it_go_on(floor: Floor) -> None:
    limits = "/v1/risk-limits/account/hedged"
    assert floor.http.put(limits, json={"daily_loss_max": "5"}, headers={"If-Match": "*"}).status_code == 200
    held = floor.ended(floor.submit(account="hedged", volume="1")["id"])
    assert held["state"] == "FILLED"
    floor.quote(BID - 0.001, ASK - 0.001)

    def halted() -> bool:
        states = floor.http.get("/v1/trading-states").json()["items"]
        return any((one["target"], one["state"]) == ("hedged", "HALTED") for one in states)

    wait_for(halted, "the account being halted")
    assert "TRADING_HALTED" in codes(floor.submit(account="hedged", volume="0.02"))
    wide = floor.http.put(limits, json={"daily_loss_max": "100000"}, headers={"If-Match": "*"})
    assert wide.status_code == 200
    state = {"state": "ACTIVE", "reason": "looked into it"}
    assert floor.http.put("/v1/trading-states/account/hedged", json=state).status_code == 200
    assert floor.submit(account="hedged", volume="0.03")["state"] == "QUEUED"


def test_the_operator_halts_everybody_at_once(floor: Floor) -> None:
    halted = tickgate(floor, "halt", "--reason", "the whole house")
    assert "(everybody)" in halted
    denied = floor.submit(volume="0.08")
    assert codes(denied) == ["TRADING_HALTED"]
    (switch,) = json.loads(tickgate(floor, "halt", "--json"))["kill_switches"]
    assert switch["scope"] == "global"
    seen = floor.http.get(f"/v1/kill-switches/{switch['id']}").json()
    assert (seen["scope"], seen["engaged"]) == ("global", True)
    refused = floor.http.delete(f"/v1/kill-switches/{switch['id']}")
    assert (refused.status_code, refused.json()["code"]) == (403, "OPERATORS_ONLY")
    assert tickgate(floor, "resume", switch["id"]).startswith("released")
    assert tickgate(floor, "halt").strip() == "nothing is halted"
    assert floor.submit(volume="0.08")["state"] == "QUEUED"


def test_what_the_operator_halts_of_a_tenant_the_tenant_cannot_resume(floor: Floor) -> None:
    tickgate(floor, "halt", "--tenant", "demo", "--account", "paper", "--reason", "gone wild")
    (switch,) = json.loads(tickgate(floor, "halt", "--json"))["kill_switches"]
    assert (switch["scope"], switch["target"]) == ("account", "paper")
    refused = floor.http.delete(f"/v1/kill-switches/{switch['id']}")
    assert (refused.status_code, refused.json()["code"]) == (403, "OPERATORS_ONLY")
    assert codes(floor.submit(volume="0.09")) == ["TRADING_HALTED"]
    tickgate(floor, "resume", switch["id"])
    assert floor.submit(volume="0.09")["state"] == "QUEUED"


@pytest.mark.parametrize(
    "mistyped", [("--tenant", "dmeo"), ("--tenant", "demo", "--account", "papper")], ids=["tenant", "account"]
)
def test_a_halt_that_would_halt_nothing_is_refused(floor: Floor, mistyped: tuple[str, ...]) -> None:
    ended = command(floor, "halt", *mistyped, "--reason", "quick")
    assert ended.returncode == 1, ended.stdout
    assert "error: " in ended.stderr
    assert tickgate(floor, "halt").strip() == "nothing is halted"


def test_a_switch_of_an_account_that_is_not_there_is_refused(floor: Floor) -> None:
    answer = floor.post("/v1/kill-switches", {"scope": "account", "id": "papper", "reason": "quick"})
    assert (answer.status_code, answer.json()["code"]) == (404, "ACCOUNT_NOT_FOUND")


def test_each_change_is_in_the_audit_once(floor: Floor) -> None:
    engaged = floor.post(
        "/v1/kill-switches", {"scope": "strategy", "id": "audited", "reason": "why not"}
    ).json()
    path = f"/v1/kill-switches/{engaged['id']}"
    first, again = (floor.http.delete(path) for _ in range(2))
    assert (first.status_code, again.status_code, again.json()) == (200, 200, first.json())
    floor.http.put("/v1/trading-states/strategy/audited", json={"state": "REDUCING", "reason": "slowly"})
    limits = {"volume_max": "3"}
    floor.http.put("/v1/risk-limits/strategy/audited", json=limits, headers={"If-Match": '"0"'})
    seen = [one for one in audited(floor) if one["facts"].get("target") == "audited"]
    assert [one["type"] for one in seen] == ["kill.engaged", "kill.released", "risk.state", "risk.limits"]
    assert {one["actor"] for one in seen} == {"client:demo"}
    assert seen[0]["facts"]["reason"] == "why not"
    assert seen[3]["facts"]["limits"] == limits


def audited(floor: Floor) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = floor.http.get("/v1/audit", params={"cursor": cursor} if cursor else {}).json()
        events += [one["event"] for one in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            return events


def test_a_state_can_be_read_where_it_was_set(floor: Floor) -> None:
    path = "/v1/trading-states/strategy/carry"
    unset = floor.http.get(path)
    assert (unset.status_code, unset.json()["code"]) == (404, "TRADING_STATE_NOT_FOUND")
    kept = floor.http.put(path, json={"state": "HALTED", "reason": "no more of it"})
    assert floor.http.get(path).json() == kept.json()
    assert codes(floor.submit(volume="0.11", strategy="carry")) == ["TRADING_HALTED"]


@pytest.mark.parametrize("name", ["EUR/USD", "a/../b", "-", "50% off?"])
def test_a_target_that_no_path_can_name_is_named_in_the_query(floor: Floor, name: str) -> None:
    limits, state = "/v1/risk-limits/strategy/-", "/v1/trading-states/strategy/-"
    of = {"of": name}
    kept = floor.http.put(limits, params=of, json={"volume_max": "2"}, headers={"If-Match": '"0"'})
    assert (kept.status_code, kept.json()["target"]) == (200, name)
    assert floor.http.get(limits, params=of).json() == kept.json()
    assert [one["target"] for one in floor.http.get(f"{limits}/versions", params=of).json()["items"]] == [
        name
    ]
    halted = floor.http.put(state, params=of, json={"state": "HALTED", "reason": "r"})
    assert (halted.status_code, halted.json()["target"]) == (200, name)
    assert floor.http.get(state, params=of).json() == halted.json()
    denied = floor.submit(volume="3", strategy=name)
    assert codes(denied) == ["TRADING_HALTED", "VOLUME_LIMIT"]


@pytest.mark.parametrize(
    ("place", "query"),
    [("strategy/-", {}), ("strategy/trend", {"of": "carry"}), ("tenant/-", {"of": "demo"})],
    ids=["no name", "two names", "a name of the tenant"],
)
def test_a_target_is_named_once(floor: Floor, place: str, query: dict[str, str]) -> None:
    answer = floor.http.get(f"/v1/risk-limits/{place}", params=query)
    assert (answer.status_code, answer.json()["code"]) == (404, "NO_SUCH_SCOPE")


@pytest.mark.parametrize("path", ["/v1/risk-limits", "/v1/trading-states"])
def test_a_list_goes_on_where_its_page_ended(floor: Floor, path: str) -> None:
    for name in ("p1", "p2"):
        state = {"state": "ACTIVE", "reason": "r"}
        assert floor.http.put(f"/v1/trading-states/strategy/{name}", json=state).status_code == 200
        limits = {"volume_max": "50"}
        kept = floor.http.put(f"/v1/risk-limits/strategy/{name}", json=limits, headers={"If-Match": "*"})
        assert kept.status_code == 200
    whole = floor.http.get(path, params={"limit": 500}).json()["items"]
    found, cursor = [], None
    while True:
        query = {"limit": 1, **({"cursor": cursor} if cursor else {})}
        page = floor.http.get(path, params=query).json()
        found += page["items"]
        if (cursor := page["next_cursor"]) is None:
            break
    assert found == whole
    assert len(found) >= 2


def test_a_cursor_of_another_list_is_refused(floor: Floor) -> None:
    for path in ("/v1/risk-limits", "/v1/trading-states", "/v1/risk-limits/tenant/-/versions"):
        assert floor.http.get(path, params={"cursor": "nowhere"}).status_code == 400


@contextmanager
def paused(floor: Floor) -> Iterator[None]:
    """Hold the trading worker still."""
    os.kill(floor.trading.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(floor.trading.pid, signal.SIGCONT)


def engaged(floor: Floor, level: str) -> str:
    """Engage a switch over the strategy `drill`, or over what has it; return its id."""
    if level == "global":
        tickgate(floor, "halt", "--reason", "drill")
        (switch,) = json.loads(tickgate(floor, "halt", "--json"))["kill_switches"]
        return str(switch["id"])
    target = {"account": {"id": "paper"}, "strategy": {"id": "drill"}}.get(level, {})
    answer = floor.post("/v1/kill-switches", {"scope": level, "reason": "drill", **target})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def asked(floor: Floor, statement: str) -> Any:
    """Ask PostgreSQL as the operator; return the first row's first column."""

    async def ask() -> Any:
        async with (
            open_hub(floor.door.settings, {"postgres"}) as hub,
            hub["postgres"].acquire() as connection,
        ):
            return await connection.fetchval(statement)

    return asyncio.run(ask())


def tries(floor: Floor, order_id: str) -> int:
    return int(
        asked(floor, f"select coalesce(max(tries), 0) from order_outbox where order_id = '{order_id}'")
    )


def tickgate(floor: Floor, *arguments: str) -> str:
    ended = command(floor, *arguments)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def command(floor: Floor, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "core.cli.main", *arguments],
        env=floor.door.worker.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
