"""Queues, cancellation and dead letters through a real gateway, worker and ledger."""

import asyncio
import json
import os
import uuid
from collections.abc import Callable, Iterator

import httpx
import msgspec
import pytest
import redis

from core.adapters.postgres.dead_letters import open_dead_letters
from core.adapters.postgres.pool import open_pool
from core.cli import main
from core.messages.codec import encode
from core.messages.dead_letters import DeadLetter
from core.settings import Settings
from tests import gateways
from tests.dead_letters import bury, letter, queued_job
from tests.engines import PASSWORD, House, wait_for
from tests.gateways import FrontDoor

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def door(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    door = gateways.build(tmp_path_factory.mktemp("queues"), house, redis_database=13)
    with gateways.running(door, []) as door:
        yield door


@pytest.fixture(scope="module")
def http(door: FrontDoor) -> Iterator[httpx.Client]:
    with door.signed_in() as http:
        yield http


@pytest.fixture(scope="module")
def rival(door: FrontDoor) -> Iterator[httpx.Client]:
    with door.signed_in("rival") as http:
        yield http


@pytest.fixture
def run(door: FrontDoor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setitem(os.environ, "TICKGATE_SETTINGS_FILE", str(door.root / "settings.json"))

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main._run(["jobs", *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def named() -> dict[str, str]:
    return {"Idempotency-Key": str(uuid.uuid4())}


async def all_letters(settings: Settings, tenant: str | None) -> list[DeadLetter]:
    async with (
        open_pool(settings, {}) as postgres,
        open_dead_letters(settings, {"postgres": postgres}) as store,
    ):
        return list(await store.page(tenant, None, 500))


def leave_in_redis(settings: Settings, dead: DeadLetter) -> None:
    port, database = settings.redis.port, settings.redis.database
    with redis.Redis(port=port, db=database, password=PASSWORD) as client:
        unfit = msgspec.structs.replace(dead, id="no id of ours", public="\0")
        client.rpush("arq:queue:trading:dead", b"nonsense", encode(unfit), encode(dead), encode(dead))


def test_queues_say_how_they_stand(http: httpx.Client) -> None:
    standings = {one["name"]: one for one in http.get("/v1/queues").json()["items"]}
    assert set(standings) == {"chain", "database", "trading"}
    assert standings["database"]["workers_alive"] == 1
    assert standings["trading"]["workers_alive"] == 0


def test_a_waiting_job_is_gone_when_it_is_cancelled(door: FrontDoor, http: httpx.Client) -> None:
    url = f"/v1/jobs/{queued_job(door.settings, 'demo')}"
    assert http.get(url).json()["status"] == "queued"
    cancelled = http.delete(url)
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    shown = http.get(url).json()
    assert (shown["status"], shown["error"]["code"]) == ("cancelled", "JOB_CANCELLED")
    again = http.delete(url)
    assert (again.status_code, again.json()["code"]) == (409, "JOB_ENDED")
    assert http.get(f"{url}/answer").json()["code"] == "JOB_CANCELLED"


def waiting_letters(http: httpx.Client) -> int:
    return sum(int(one["dead_letters_waiting"]) for one in http.get("/v1/queues").json()["items"])


def test_dead_letters_are_moved_into_the_ledger_once_each_and_none_blocks_the_others(
    door: FrontDoor, http: httpx.Client
) -> None:
    dead = letter("demo")
    leave_in_redis(door.settings, dead)

    def moved() -> bool:
        found = asyncio.run(all_letters(door.settings, None))
        return [one.id for one in found].count(dead.id) == 1

    wait_for(moved, "the letter being in the ledger", 15)
    wait_for(lambda: waiting_letters(http) == 0, "none of them waiting any more", 15)


def test_a_tenant_pages_through_its_dead_letters_and_no_other(
    door: FrontDoor, http: httpx.Client, rival: httpx.Client
) -> None:
    mine = [letter("demo") for _ in range(3)]
    bury(door.settings, *mine, letter("rival", public="theirs"), letter("", public="the system's"))
    seen, cursor = [], None
    while True:
        page = http.get("/v1/dead-letters", params={"limit": 2, **({"cursor": cursor} if cursor else {})})
        seen += page.json()["items"]
        cursor = page.json()["next_cursor"]
        if cursor is None:
            break
    ids = [one["id"] for one in seen]
    assert ids == sorted(set(ids), reverse=True)
    assert {one.id for one in mine} <= set(ids)
    assert {one["error"] for one in seen} == {"something broke"}
    assert http.get(f"/v1/dead-letters/{mine[0].id}").json()["request"] == {}
    assert {one["error"] for one in rival.get("/v1/dead-letters").json()["items"]} == {"theirs"}
    assert rival.get(f"/v1/dead-letters/{mine[0].id}").status_code == 404


def test_what_nobody_would_read_is_not_replayed(door: FrontDoor, http: httpx.Client) -> None:
    dead = letter("demo", "market.export", "database")
    bury(door.settings, dead)
    refused = http.post(f"/v1/dead-letters/{dead.id}/replay", headers=named())
    assert (refused.status_code, refused.json()["code"]) == (409, "NOT_REPLAYABLE")
    assert http.get(f"/v1/dead-letters/{dead.id}").json()["state"] == "dead"


def test_a_dead_letter_is_replayed_once(door: FrontDoor, http: httpx.Client) -> None:
    dead = letter("demo", "database.probe", "database")
    bury(door.settings, dead)
    key = named()
    replayed = http.post(f"/v1/dead-letters/{dead.id}/replay", headers=key)
    assert replayed.status_code == 202, replayed.text
    location = replayed.headers["location"]
    wait_for(lambda: http.get(location).json()["status"] == "finished", "the job again", 10)
    assert http.get(location).json()["answer"] == {"alive": True}
    assert http.post(f"/v1/dead-letters/{dead.id}/replay", headers=key).headers["location"] == location
    refused = http.post(f"/v1/dead-letters/{dead.id}/replay", headers=named())
    assert (refused.status_code, refused.json()["code"]) == (409, "DEAD_LETTER_REPLAYED")
    shown = http.get(f"/v1/dead-letters/{dead.id}").json()
    assert (shown["state"], f"/v1/jobs/{shown['replay_job_id']}") == ("replayed", location)


def test_a_letter_that_cannot_be_read_is_not_replayed(door: FrontDoor, http: httpx.Client) -> None:
    dead = letter("demo", job=b"nonsense")
    bury(door.settings, dead)
    assert http.post(f"/v1/dead-letters/{dead.id}/replay", headers=named()).status_code == 500
    assert http.get(f"/v1/dead-letters/{dead.id}").json()["state"] == "dead"


def test_the_operator_sees_and_replays_everybodys(door: FrontDoor, run: Run) -> None:
    theirs, own = letter("rival"), letter("", "database.probe", "database")
    bury(door.settings, theirs, own)
    code, said, _ = run("dead", "--json")
    assert code == 0
    assert {theirs.id, own.id} <= {one["id"] for one in json.loads(said)["dead_letters"]}
    assert "(system)" in run("dead")[1]
    assert json.loads(run("show", own.id)[1])["function"] == "database.probe"
    code, said, _ = run("replay", own.id)
    assert (code, said) == (0, f"{own.id} is asked again as job dead.{own.id}\n")
    code, _, complaint = run("replay", own.id)
    assert (code, complaint) == (1, "error: this dead letter has been replayed already\n")
    assert run("show", "nothing")[0] == 1


def test_the_operator_replays_all_that_can_be(door: FrontDoor, run: Run) -> None:
    dead, broken = letter("rival"), letter("rival", job=b"nonsense")
    bury(door.settings, dead, broken)
    code, said, complaint = run("replay", "--all")
    assert (code, broken.id in complaint, dead.id in said) == (1, True, True)


def test_the_operator_sees_how_queues_stand(run: Run) -> None:
    code, said, _ = run("queues", "--json")
    assert code == 0
    assert [one["name"] for one in json.loads(said)["queues"]] == ["chain", "database", "trading"]
    assert "in progress" in run("queues")[1]
