"""Two gateways and three database workers under load, and a caller who keeps count.

The caller behaves as docs and headers tell it: what is refused for now it asks again later, what was cut it asks the
other gateway, and what was accepted it expects to finish.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from core.settings import Settings
from tests import gateways
from tests.engines import House, free_port
from tests.faults.processes import Child
from tests.gateways import DAY_MS, tick

GATEWAYS = 2
WORKERS = 3
CALLERS = 6
PAUSE_S = 0.02
CALL_TIMEOUT_S = 20.0
SETTLE_TIMEOUT_S = 45.0
TICKS = "/v1/ticks?symbol=EURUSD"
ROWS = [tick(seq, DAY_MS + seq, 1.1, 1.2) for seq in range(1, 51)]


@dataclass
class Fleet:
    """gateways, workers: started again when down, like any supervisor would. token: a tenant's."""

    settings: Settings
    gateways: list[Child]
    workers: list[Child]
    ports: list[int]
    token: str = ""

    @property
    def children(self) -> list[Child]:
        return [*self.gateways, *self.workers]

    def url(self, number: int) -> str:
        return f"http://127.0.0.1:{self.ports[number % GATEWAYS]}"

    def server_process(self, gateway: Child) -> psutil.Process | None:
        """The child of a gateway's main process that serves."""
        assert gateway.process is not None
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(gateway.process.pid).children():
                if not any("resource_tracker" in part for part in child.cmdline()):
                    return child
        return None


@contextlib.contextmanager
def running_fleet(house: House, directory: Path, redis_database: int) -> Iterator[Fleet]:
    """Start them all, on databases of their own, and wait until each is ready."""
    door = gateways.build(directory, house, redis_database=redis_database)
    asyncio.run(gateways.prepare(door.settings, ROWS))
    ports = [free_port() for _ in range(GATEWAYS)]

    def child(name: str, arguments: list[str], **changes: Any) -> Child:
        environment = door.gateway.environment | {
            f"TICKGATE_{key}": str(value) for key, value in changes.items()
        }
        return Child(name, arguments, environment, directory / f"{name}.log")

    fleet = Fleet(
        settings=door.settings,
        gateways=[child(f"gateway{n}", ["gateway"], GATEWAY_PORT=port) for n, port in enumerate(ports)],
        workers=[
            child(f"worker{n}", ["workers", "database"], WORKER_HEALTH_PORT=free_port())
            for n in range(WORKERS)
        ],
        ports=ports,
    )
    try:
        for one in fleet.children:
            one.start()
        yield fleet
    finally:
        for one in fleet.children:
            one.end()


@dataclass
class Count:
    """What a caller saw. accepted: job URLs; cut: connections that broke; slowest_s: until a read was answered."""

    answers: Counter[int] = field(default_factory=Counter)
    accepted: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    cut: int = 0
    twice_cut: int = 0
    slowest_s: float = 0.0


class Caller:
    """Asks both gateways without a pause worth the name, and writes down what comes."""

    def __init__(self, fleet: Fleet, http: aiohttp.ClientSession) -> None:
        self._fleet = fleet
        self._http = http
        self.count = Count()
        self.stop = asyncio.Event()

    async def run(self, number: int) -> None:
        turn = number
        while not self.stop.is_set():
            turn += 1
            wait = "0" if turn % 2 else "10"
            await self._read(turn, {"Prefer": f"wait={wait}"})
            await asyncio.sleep(PAUSE_S)

    async def _read(self, turn: int, headers: dict[str, str]) -> None:
        started_s = time.monotonic()
        for attempt in range(GATEWAYS + 1):
            try:
                await self._ask(self._fleet.url(turn + attempt), headers)
            except (aiohttp.ClientError, ConnectionError):
                self.count.cut += 1
                continue
            self.count.slowest_s = max(self.count.slowest_s, time.monotonic() - started_s)
            return
        self.count.twice_cut += 1

    async def _ask(self, url: str, headers: dict[str, str]) -> None:
        async with self._http.get(f"{url}{TICKS}", headers=headers) as answer:
            body = await answer.read()
            self.count.answers[answer.status] += 1
            if answer.status == 202:
                self.count.accepted.append(answer.headers["Location"])
            elif answer.status != 200:
                self.count.failures.append(f"{answer.status}: {body[:200].decode()}")

    async def unfinished(self) -> list[str]:
        """Wait for every accepted job; return those that did not finish, and how they stand."""
        waiting, stands = self.count.accepted, {}
        deadline_s = time.monotonic() + SETTLE_TIMEOUT_S
        while waiting and time.monotonic() < deadline_s:
            still = []
            for url in waiting:
                async with self._http.get(self._fleet.url(len(still)) + url) as answer:
                    body = await answer.json()
                    stands[url] = body
                    if body.get("status") != "finished":
                        still.append(url)
                    if answer.status == 429:
                        await asyncio.sleep(1)
            waiting = still
            await asyncio.sleep(0.2)
        return [f"{url}: {stands[url]}" for url in waiting]


@contextlib.asynccontextmanager
async def calling(fleet: Fleet) -> AsyncIterator[Caller]:
    """Keep the fleet under load for the block."""
    headers = {"Authorization": f"Bearer {fleet.token}"}
    timeout = aiohttp.ClientTimeout(total=CALL_TIMEOUT_S)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as http:
        caller = Caller(fleet, http)
        async with asyncio.TaskGroup() as group:
            for number in range(CALLERS):
                group.create_task(caller.run(number))
            try:
                yield caller
            finally:
                caller.stop.set()


async def token_of(fleet: Fleet) -> str:
    form = {"grant_type": "client_credentials"}
    headers = {"Authorization": gateways.basic("demo", gateways.SECRET)}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.post(f"{fleet.url(0)}/oauth/token", data=form) as answer,
    ):
        return str((await answer.json())["access_token"])


async def status_of(url: str) -> int:
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as http,
            http.get(url) as answer,
        ):
            return answer.status
    except (aiohttp.ClientError, TimeoutError):
        return 0
