"""Orders under kill -9: gateways and trading workers die all the time, Redis is emptied, and no order executes twice.

The paper venue keeps its own truth, apart from the ledger: what it executed for each order is held against what callers
were told and what the ledger says.
"""

import asyncio
import contextlib
import json
import os
import random
import threading
import time
import uuid
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import redis

from core.auditing.checkpoints import Keyring
from core.auditing.verification import verify
from core.errors.exceptions import TickgateError
from core.infrastructure.central_hub import open_hub
from core.model.orders import TERMINAL, OrderState, may_move
from core.settings import Settings
from tests.engines import House, free_port, wait_for
from tests.gateways import Process
from tests.trading_floors import SYMBOL, Floor, put_quote, running_floor

KILLS: Final = int(os.environ.get("TICKGATE_TEST_KILLS", "60"))
SEED: Final = int(os.environ.get("TICKGATE_TEST_SEED", "0")) or random.SystemRandom().randrange(2**32)
INTERVAL_S: Final = 0.5
CALLERS: Final = 4
QUOTE_INTERVAL_S: Final = 0.2
HEAL_TIMEOUT_S: Final = 60.0
WIDE: Final = {
    "submits_per_minute_max": 1_000_000,
    "duplicate_window_ms": 0,
    "position_max": "100000",
    "account_notional_max": "100000000000",
    "margin_share_max": "1",
    "consecutive_rejects_max": 1_000_000,
    "quote_age_ms_max": 60_000,
}


class Callers:
    """Clients that submit orders until told to stop, and send each again until they are told what became of it."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._submit, args=(number,)) for number in range(CALLERS)]
        self.accepted: dict[str, str] = {}
        """Order ids by idempotency key."""
        self.surprises: list[str] = []

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(HEAL_TIMEOUT_S)

    def _submit(self, number: int) -> None:
        chance = random.Random(SEED + number)
        while not self._stop.is_set():
            body = {
                "account": "paper",
                "symbol": SYMBOL,
                "side": chance.choice(["buy", "sell"]),
                "type": "market",
                "volume": f"0.0{chance.randint(1, 9)}",
                "valid_for_ms": 2_000,
            }
            self._until_told(f"{number}-{uuid.uuid4()}", body)

    def _until_told(self, key: str, body: dict[str, Any]) -> None:
        headers = {"Idempotency-Key": key, "Authorization": self._floor.http.headers["authorization"]}
        give_up_at_s = time.monotonic() + HEAL_TIMEOUT_S
        while time.monotonic() < give_up_at_s:
            try:
                answer = httpx.post(
                    f"{self._floor.door.url}/v1/orders", json=body, headers=headers, timeout=10
                )
            except httpx.HTTPError:
                time.sleep(0.1)
                continue
            if answer.status_code == 202:
                self.accepted[key] = answer.json()["id"]
                return
            if answer.status_code not in {409, 429, 503}:
                self.surprises.append(f"{answer.status_code}: {answer.text[:300]}")
                return
            time.sleep(0.2)
        self.surprises.append(f"{key} was never answered")


def kept_quoted(settings: Settings, stop: threading.Event) -> None:
    while not stop.is_set():
        # Redis may just be emptied; the next quote comes.
        with contextlib.suppress(TickgateError):
            asyncio.run(put_quote(settings))
        stop.wait(QUOTE_INTERVAL_S)


@pytest.fixture
def floor(house: House, tmp_path: Path) -> Any:
    with running_floor(tmp_path, house) as running:
        yield running


@pytest.mark.timeout(280)
def test_no_order_executes_twice_whatever_is_killed(floor: Floor) -> None:
    chance, stop = random.Random(SEED), threading.Event()
    put = floor.http.put("/v1/risk-limits/tenant/-", json=WIDE, headers={"If-Match": "*"})
    assert put.status_code == 200, put.text
    environment = {**floor.trading.environment, "TICKGATE_WORKER_HEALTH_PORT": str(free_port())}
    second = Process(["workers", "trading"], environment, floor.door.root / "trading-2.log")
    second.start()
    quoting = threading.Thread(target=kept_quoted, args=(floor.door.settings, stop))
    quoting.start()
    try:
        with Callers(floor) as callers:
            for _ in range(KILLS):
                time.sleep(INTERVAL_S * chance.uniform(0.5, 1.5))
                hurt(floor, second, chance)
            wait_for(lambda: len(callers.accepted) > KILLS, "enough orders to prove anything", HEAL_TIMEOUT_S)
        wait_for(lambda: in_motion(floor.door.settings) == [], "every order having ended", HEAL_TIMEOUT_S)
        time.sleep(1)  # one more look at the account, so that what is compared is what was compared
    finally:
        stop.set()
        quoting.join()
        second.stop()
    assert callers.surprises == [], f"seed {SEED}"
    problems = asyncio.run(judge(floor.door.settings, callers.accepted))
    assert problems == [], f"seed {SEED}"


def hurt(floor: Floor, second: Process, chance: random.Random) -> None:
    """Kill one of them, or empty Redis; start again at once what was killed."""
    victim = chance.choice([floor.door.gateway, floor.trading, floor.trading, second, second, None])
    if victim is None:
        ours = floor.door.settings.redis
        with redis.Redis(port=ours.port, db=ours.database, password=ours.password.reveal()) as client:
            client.flushdb()
        return
    assert victim.process is not None
    victim.process.kill()
    victim.process.wait()
    victim.start()


def in_motion(settings: Settings) -> list[str]:
    async def read() -> list[str]:
        async with open_hub(settings, {"postgres"}) as hub, hub["postgres"].acquire() as connection:
            rows = await connection.fetch("select id from orders where state <> all($1)", list(TERMINAL))
        return [row["id"] for row in rows]

    return asyncio.run(read())


async def judge(settings: Settings, accepted: dict[str, str]) -> list[str]:
    """Hold the venue's truth against the ledger, and the ledger against itself. Return what is wrong."""
    async with open_hub(settings, {"postgres", "audit_archive"}) as hub:
        async with hub["postgres"].acquire() as connection:
            orders = {row["id"]: dict(row) for row in await connection.fetch("select * from orders")}
            deals = [
                json.loads(row["deal"]) for row in await connection.fetch("select deal from paper_deals")
            ]
            fills = await connection.fetch("select * from fills")
            events = await connection.fetch("select * from order_events order by order_id, seq")
            positions = await connection.fetch("select * from positions where account = 'paper'")
        trail = await hub["audit_archive"].entries("demo", after=0, limit=1_000_000)
    problems = [
        f"{key} was accepted as {one}, which is not there"
        for key, one in accepted.items()
        if one not in orders
    ]
    problems += _of_executions(orders, deals)
    problems += _of_moves(orders, [dict(event) for event in events])
    if {deal["ticket"] for deal in deals} != {fill["deal"] for fill in fills}:
        problems.append("the ledger's fills are not the venue's deals")
    signed = sum((_sign(d["side"]) * Decimal(d["volume"]) for d in deals), Decimal(0))
    held = sum((_sign(p["side"]) * p["volume"] for p in positions), Decimal(0))
    if signed != held:
        problems.append(f"deals make {signed} lots, the position is {held}")
    verdict = verify("demo", trail, [], Keyring([]))
    if verdict.finding:
        problems.append(f"audit: {verdict.finding}")
    told = Counter(entry.type for entry in trail)
    if told["order.fill"] != len(fills):
        problems.append(f"{told['order.fill']} fills are audited, {len(fills)} are there")
    return problems


def _of_executions(orders: dict[str, Any], deals: list[dict[str, Any]]) -> list[str]:
    problems = []
    tickets: dict[str, set[str]] = {}
    for deal in deals:
        tickets.setdefault(deal["tag"], set()).add(deal["order"])
    problems += [f"{tag} was executed {len(ones)} times" for tag, ones in tickets.items() if len(ones) > 1]
    for order_id, order in orders.items():
        executed = sum((Decimal(d["volume"]) for d in deals if d["tag"] == order_id), Decimal(0))
        if executed != order["filled_volume"]:
            problems.append(
                f"{order_id} {order['state']}: {order['filled_volume']} filled, {executed} executed"
            )
        if (order["state"] == OrderState.FILLED) != (executed == order["volume"]):
            problems.append(f"{order_id} is {order['state']} with {executed} of {order['volume']} executed")
    return problems


def _of_moves(orders: dict[str, Any], events: list[dict[str, Any]]) -> list[str]:
    problems, last = [], {}
    for event in events:
        old, new = OrderState(event["old_state"]), OrderState(event["new_state"])
        before = last.get(event["order_id"], OrderState.CREATED)
        if old is not before or (old is not new and not may_move(old, new)):
            problems.append(f"{event['order_id']} went from {before} by {old} to {new}")
        last[event["order_id"]] = new
    problems += [
        f"{order_id} is {order['state']}, its events end with {last.get(order_id)}"
        for order_id, order in orders.items()
        if last.get(order_id) != order["state"]
    ]
    return problems


def _sign(side: str) -> int:
    return 1 if side == "buy" else -1
