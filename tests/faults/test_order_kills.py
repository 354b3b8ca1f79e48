"""Orders under kill -9: whatever dies, PostgreSQL and Valkey too, no order executes twice and none is lost.

The venues keep their own truth, the paper book apart from the ledger and the simulated terminal in a file: what they
executed for each order is held against what callers were told and what the ledger says.
"""

import asyncio
import contextlib
import os
import random
import threading
import time
import uuid
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.faults.order_judge import judge
from tests.faults.trading_house import PAPER, TERMINAL_ACCOUNT, TradingHouse, running_trading_house
from tests.faults.world import FaultHouse
from tests.trading_floors import SYMBOL, Floor

KILLS: Final = int(os.environ.get("TICKGATE_TEST_KILLS", "60"))
SEED: Final = int(os.environ.get("TICKGATE_TEST_SEED", "0")) or random.SystemRandom().randrange(2**32)
INTERVAL_S: Final = 0.5
CALLERS: Final = 4
TERMINAL_SHARE, RESTING_SHARE, CANCEL_SHARE = 0.4, 0.3, 0.5
FAR: Final = {"buy": "1.09", "sell": "1.115"}
FILLS_MIN: Final = min(KILLS, 60) // 2
HEAL_TIMEOUT_S: Final = 90.0
ANSWER_TIMEOUT_S: Final = 10.0
TIMEOUT_S: Final = 300 + 5 * KILLS


class Callers:
    """Clients that submit orders until told to stop, and send each again until they are told what became of it."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor
        self._token = floor.http.headers["authorization"]
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._submit, args=(number,)) for number in range(CALLERS)]
        self.accepted: dict[str, str] = {}
        """Order ids by idempotency key."""
        self.surprises: list[str] = []

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> None:
        """Ask for nothing new."""
        self._stop.set()

    def told(self) -> bool:
        """Whether each has been told of all it asked for, or has given up."""
        return not any(thread.is_alive() for thread in self._threads)

    def __exit__(self, *_: object) -> None:
        self.stop()
        for thread in self._threads:
            thread.join(2 * HEAL_TIMEOUT_S)

    def _submit(self, number: int) -> None:
        chance = random.Random(SEED + number)
        while not self._stop.is_set():
            side, resting = chance.choice(["buy", "sell"]), chance.random() < RESTING_SHARE
            body = {
                "account": TERMINAL_ACCOUNT if chance.random() < TERMINAL_SHARE else PAPER,
                "symbol": SYMBOL,
                "side": side,
                "volume": f"0.0{chance.randint(1, 9)}",
                # What rests and is proved never to have arrived is sent again; a market order's market has gone.
                **(
                    {"type": "limit", "price": FAR[side]}
                    if resting
                    else {"type": "market", "valid_for_ms": 2_000}
                ),
            }
            key = f"{number}-{uuid.uuid4()}"
            self._until_told(key, body)
            if resting and key in self.accepted and chance.random() < CANCEL_SHARE:
                self._cancel(f"/{self.accepted[key]}/cancel")

    def cancel_all(self) -> None:
        """Ask for everything to be taken back that works."""
        for name in (PAPER, TERMINAL_ACCOUNT):
            self._cancel("/cancel", {"account": name})

    def _cancel(self, path: str, body: dict[str, Any] | None = None) -> None:
        with contextlib.suppress(httpx.HTTPError):
            self._posted(uuid.uuid4().hex, body, path)

    def _until_told(self, key: str, body: dict[str, Any]) -> None:
        give_up_at_s = time.monotonic() + HEAL_TIMEOUT_S
        while time.monotonic() < give_up_at_s:
            try:
                answer = self._posted(key, body)
                if answer.status_code == 401:
                    self._token = f"Bearer {self._floor.door.token()}"  # it lives for a quarter of an hour
                    answer = self._posted(key, body)
            except (httpx.HTTPError, AssertionError):
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

    def _posted(self, key: str, body: dict[str, Any] | None, path: str = "") -> httpx.Response:
        headers = {"Idempotency-Key": key, "Authorization": self._token}
        url = f"{self._floor.door.url}/v1/orders{path}"
        return httpx.post(url, json=body, headers=headers, timeout=ANSWER_TIMEOUT_S)


def enough(house: TradingHouse) -> bool:
    return all(house.filled.get(name, 0) >= FILLS_MIN for name in (PAPER, TERMINAL_ACCOUNT))


def ended(house: TradingHouse, callers: Callers) -> bool:
    """Whether all orders have; what rests is taken back. One of those nobody knows of may come to rest later."""
    if house.in_motion():
        callers.cancel_all()
        house.let_run(INTERVAL_S)
    return not house.in_motion()


@pytest.fixture
def house(fault_house: FaultHouse, fault_directory: Path) -> Any:
    with running_trading_house(fault_house, fault_directory / "orders") as running:
        yield running


@pytest.mark.timeout(TIMEOUT_S)
def test_no_order_executes_twice_whatever_is_killed(house: TradingHouse) -> None:
    chance = random.Random(SEED)
    with Callers(house.floor) as callers:
        for _ in range(KILLS):
            house.let_run(INTERVAL_S * chance.uniform(0.5, 1.5))
            house.calm_down(chance)
            house.hurt(chance)
        house.wait_for(lambda: enough(house), "enough orders to prove anything", HEAL_TIMEOUT_S)
        callers.stop()
        house.wait_for(callers.told, "every caller having been told", 2 * HEAL_TIMEOUT_S)
    house.wait_for(lambda: ended(house, callers), "every order having ended", HEAL_TIMEOUT_S)
    house.wait_for(house.compared(), "both accounts being compared once more", HEAL_TIMEOUT_S)
    assert callers.surprises == [], f"seed {SEED}"
    judged = asyncio.run(judge(house, callers.accepted))
    print(f"killed {house.killed}, accepted {len(callers.accepted)}, {dict(judged.ended)}")
    assert judged.problems == [], f"seed {SEED}, killed {house.killed}"
    assert house.ended == [], f"seed {SEED}, killed {house.killed}"
