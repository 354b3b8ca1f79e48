"""A trading worker begins with matching: it is not ready, and sends nothing, before every account was looked at."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis

from core.adapters.redis.terminal_relay import holder_key, new_inbox
from tests.engines import House, free_port, wait_for
from tests.gateways import Process
from tests.trading_floors import Floor, account, keep_records, queued_order, running_floor

SLOW = "slow"


@pytest.fixture(scope="module")
def floor(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Floor]:
    with running_floor(tmp_path_factory.mktemp("start"), house) as floor:
        yield floor


def problem(port: int) -> tuple[int, str]:
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2)
    except httpx.HTTPError:
        return 0, ""
    return answer.status_code, answer.json()["problem"]


def test_a_worker_is_not_ready_before_every_account_was_looked_at(floor: Floor, tmp_path: Path) -> None:
    settings = floor.door.settings
    body = account(title=SLOW, venue="mt5", source="demo2", server="simulation")
    asyncio.run(keep_records(settings, "demo", {SLOW: body}, instrument=False))
    # What is put there lies until the worker takes it back: the first look at this account takes 2 s.
    ours = settings.redis
    with redis.Redis(port=ours.port, db=ours.database, password=ours.password.reveal()) as client:
        client.set(holder_key("demo2"), new_inbox("nobody"))
    port = free_port()
    environment = {**floor.trading.environment, "TICKGATE_WORKER_HEALTH_PORT": str(port)}
    worker = Process(["workers", "trading"], environment, tmp_path / "trading.log")
    floor.trading.stop()
    paper = queued_order(settings, "demo", "paper")
    worker.start()
    try:
        wait_for(
            lambda: problem(port) == (503, "accounts are still being matched with their venues"),
            "the worker saying that it is not ready",
        )
        assert floor.order(paper)["state"] == "QUEUED"
        wait_for(lambda: problem(port) == (200, ""), "the worker being ready")
        wait_for(lambda: floor.order(paper)["state"] != "QUEUED", "the order being sent")
    finally:
        worker.stop()
        floor.trading.start()


def test_an_account_that_was_never_matched_gets_no_order(floor: Floor) -> None:
    body = account(title="never", venue="mt5", source="demo", server="simulation")
    asyncio.run(keep_records(floor.door.settings, "demo", {"never": body}, instrument=False))
    denied = floor.order(floor.submit(account="never")["id"])
    assert denied["state"] == "DENIED"
    assert "RECONCILING" in [denial["code"] for denial in denied["denials"]]


def test_accounts_are_matched_again_every_second_at_least(floor: Floor) -> None:
    def matched_at_ms() -> int:
        return int(floor.http.get("/v1/accounts/paper/standing").json()["reconciled_at_ms"])

    began_s, looks = time.monotonic(), {matched_at_ms()}
    while len(looks) < 4 and time.monotonic() - began_s < 10:
        wait_for(lambda: matched_at_ms() not in looks, "the next look")
        looks.add(matched_at_ms())
    assert time.monotonic() - began_s < 10
