"""kill -9 of any one process of a fleet under load: what was accepted finishes, and nobody is told that we broke."""

import asyncio
import os
import random
import re
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.faults.fleet import TICKS, Caller, Fleet, calling, running_fleet, status_of, token_of
from tests.faults.processes import Child
from tests.faults.world import FaultHouse

KILLS = int(os.environ.get("TICKGATE_TEST_KILLS", "100"))
ROUNDS = max(1, KILLS // 100)
"""Of each kind of victim."""
KINDS = ("gateway", "server process", "worker", "valkey")
RECOVERY_S_MAX = 20.0
UNDISTURBED_S = 0.5
LOOK_INTERVAL_S = 0.05
REDIS_DATABASE = 9
WAITING = 8


@pytest.fixture(scope="module")
def fleet(fault_house: FaultHouse, fault_directory: Path) -> Iterator[Fleet]:
    fault_house.heal()
    with running_fleet(fault_house.house, fault_directory / "fleet", REDIS_DATABASE) as fleet:
        asyncio.run(_until_ready(fleet))
        fleet.token = asyncio.run(token_of(fleet))
        yield fleet


@pytest.mark.timeout(120 + 60 * ROUNDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_process_loses_no_accepted_job_and_shows_no_error(
    fleet: Fleet,
    fault_house: FaultHouse,
    kind: str,
    seed: int,
    record_property: Callable[[str, object], None],
) -> None:
    chance = random.Random(seed)
    caller, recoveries_s = asyncio.run(_rounds(fleet, fault_house, kind, chance))
    count = caller.count
    record_property(f"recovery of {kind}", recoveries_s)
    print(f"\n{kind}: recovered in {recoveries_s} s; {dict(count.answers)}, {count.cut} cut")
    if kind == "valkey":
        # Nothing can be accepted without the queue; saying so, with Retry-After, is right while it is away.
        count.failures = [one for one in count.failures if "QUEUE_UNAVAILABLE" not in one]
    assert not [one for one in count.failures if not one.startswith("429")], f"seed {seed}"
    assert count.twice_cut == 0 or kind == "valkey", "one gateway is always there"
    assert count.accepted, "there was load"
    assert max(recoveries_s) < RECOVERY_S_MAX


def test_a_gateway_told_to_stop_answers_what_it_has_begun(fleet: Fleet) -> None:
    gateway = fleet.gateways[0]
    for worker in fleet.workers:
        worker.send(signal.SIGSTOP)
    try:
        answers = asyncio.run(_stopped_while_waiting(fleet, gateway))
    finally:
        for worker in fleet.workers:
            worker.send(signal.SIGCONT)
    assert answers == [200] * WAITING
    assert gateway.process is not None
    assert gateway.process.wait(10) == 0
    gateway.start()
    asyncio.run(_until_ready(fleet))


async def _stopped_while_waiting(fleet: Fleet, gateway: Child) -> list[int]:
    headers = {"Authorization": f"Bearer {fleet.token}", "Prefer": "wait=9"}
    async with aiohttp.ClientSession(headers=headers) as http:

        async def ask() -> int:
            async with http.get(f"{fleet.url(0)}{TICKS}") as answer:
                return answer.status

        async def in_flight() -> int:
            async with http.get(f"{fleet.url(0)}/metrics", headers={"Authorization": ""}) as answer:
                found = re.search(r"^tickgate_http_requests_in_flight (\d+)", await answer.text(), re.M)
                return int(found[1]) if found else 0

        asking = [asyncio.create_task(ask()) for _ in range(WAITING)]
        async with asyncio.timeout(10):
            while await in_flight() <= WAITING:  # and the one that asks
                await asyncio.sleep(0.02)
        gateway.send(signal.SIGTERM, group=False)
        async with asyncio.timeout(5):
            while await status_of(f"{fleet.url(0)}/livez") == 200:
                await asyncio.sleep(0.02)
        for worker in fleet.workers:
            worker.send(signal.SIGCONT)
        return await asyncio.gather(*asking)


async def _rounds(
    fleet: Fleet, house: FaultHouse, kind: str, chance: random.Random
) -> tuple[Caller, list[float]]:
    recoveries_s = []
    async with calling(fleet) as caller:
        async with _supervised(fleet, house):
            for _ in range(ROUNDS):
                await asyncio.sleep(chance.uniform(0.2, 0.2 + UNDISTURBED_S))
                killed_at_s = time.monotonic()
                back = _kill(fleet, house, kind, chance)
                async with asyncio.timeout(RECOVERY_S_MAX):
                    while not await back():
                        await asyncio.sleep(LOOK_INTERVAL_S)
                recoveries_s.append(round(time.monotonic() - killed_at_s, 2))
            await asyncio.sleep(UNDISTURBED_S)
        caller.stop.set()
        assert await caller.unfinished() == []
    return caller, recoveries_s


def _kill(fleet: Fleet, house: FaultHouse, kind: str, chance: random.Random) -> Callable[[], Awaitable[bool]]:
    """kill -9 one of a kind; return what says that it is back."""
    if kind == "worker":
        worker = chance.choice(fleet.workers)
        worker.kill(group=False)
        port = worker.environment["TICKGATE_WORKER_HEALTH_PORT"]
        return lambda: _answers(f"http://127.0.0.1:{port}/readyz")
    if kind == "valkey":
        house.engines["valkey"].kill()
        return lambda: _answers(f"{fleet.url(0)}/readyz", f"{fleet.url(1)}/readyz")
    number = chance.randrange(len(fleet.gateways))
    gateway = fleet.gateways[number]
    server = fleet.server_process(gateway)
    assert server is not None
    if kind == "gateway":
        gateway.kill(group=False)
    else:
        server.send_signal(signal.SIGKILL)

    async def back() -> bool:
        # The server process of a killed gateway still ends what it has begun.
        return not server.is_running() and await _answers(f"{fleet.url(number)}/livez")

    return back


async def _answers(*urls: str) -> bool:
    return all([await status_of(url) == 200 for url in urls])


@asynccontextmanager
async def _supervised(fleet: Fleet, house: FaultHouse) -> AsyncIterator[None]:
    """Start again whatever has ended, like the house's supervisor does."""

    async def supervise(children: list[Child]) -> None:
        while True:
            for child in children:
                child.supervise()
            await asyncio.sleep(0.05)

    task = asyncio.create_task(supervise([*fleet.children, *house.engines.values()]))
    try:
        yield
    finally:
        task.cancel()


async def _until_ready(fleet: Fleet) -> None:
    async with asyncio.timeout(60):
        while not await _answers(f"{fleet.url(0)}/readyz", f"{fleet.url(1)}/readyz"):
            await asyncio.sleep(0.1)
