"""Real engines for tests: one of each a session, and a database of its own for each test."""

import asyncio
import contextlib
import itertools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.errors.exceptions import Unavailable
from core.infrastructure.config_manager import write_settings_file
from core.infrastructure.migrator import migrate
from core.settings import ClickHouseSettings, PostgresSettings, RedisSettings, Secret, Settings

START_TIMEOUT_S = 60.0
PASSWORD = "test-password"


def free_port() -> int:
    """Return a port nobody listens on, and that nobody else who runs these tests is given.

    Below the kernel's own range: a port from there may become some connection's local one before its server starts.
    Who is given ports of a slice keeps its first one bound as a lock, for as long as the process lives.
    """
    for port in _ports:
        if bindable(port):
            return port
    raise AssertionError("no free port is left")


def free_ports(count: int) -> int:
    """Return the first of `count` free ports in a row."""
    while True:
        first = free_port()
        if all(free_port() == first + offset for offset in range(1, count)):
            return first


def bindable(port: int) -> bool:
    with socket.socket() as probe:
        # As a server would: a connection that only lingers in TIME_WAIT is not in its way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _ports_of_one_process() -> Iterator[int]:
    for first in range(10_000, 32_000, 1_000):
        with socket.socket() as lock:
            try:
                lock.bind(("127.0.0.1", first))
            except OSError:
                continue
            yield from itertools.cycle(range(first + 1, first + 1_000))
    raise AssertionError("every slice of ports is taken")


_ports = _ports_of_one_process()


def wait_for(fact: Callable[[], Any], what: str, timeout_s: float = START_TIMEOUT_S) -> Any:
    """Return the first truthy `fact()`, or fail with what was waited for."""
    deadline = time.monotonic() + timeout_s
    while True:
        if found := fact():
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {timeout_s:g} s")
        time.sleep(0.02)


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@dataclass
class Engine:
    """One engine process that can be killed and started again."""

    name: str
    port: int
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "core.cli.engine", self.name],
                env=self.environment,
                stdout=log,
                stderr=log,
                cwd=Path(__file__).parents[1],
            )

    def wait(self) -> None:
        def up() -> bool:
            assert self.process is not None
            if self.process.poll() is not None:
                raise AssertionError(f"{self.name} ended:\n{self.log.read_text()[-3000:]}")
            return listens(self.port)

        wait_for(up, f"{self.name} listening")

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self.process is None:
            return
        # SIGINT is PostgreSQL's fast shutdown.
        self.send(signal.SIGINT if (self.name, number) == ("postgres", signal.SIGTERM) else number)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass
class House:
    """The three engines and settings that reach them."""

    root: Path
    settings: Settings
    engines: dict[str, Engine]


def build_house(root: Path) -> House:
    """Lay out settings for three engines below `root`; nothing is started."""
    root.mkdir(parents=True, exist_ok=True)
    ports = {name: free_port() for name in ("postgres", "valkey", "clickhouse")}
    tree = {
        "profile": "embedded",
        "postgres": {"port": ports["postgres"], "password": PASSWORD, "user": "tickgate"},
        "redis": {"port": ports["valkey"], "password": PASSWORD},
        "clickhouse": {"port": ports["clickhouse"], "password": PASSWORD, "user": "tickgate"},
    }
    settings_file = root / "settings.json"
    write_settings_file(settings_file, tree)
    environment = {
        **os.environ,
        "TICKGATE_SETTINGS_FILE": str(settings_file),
        "TICKGATE_DATA_DIR": str(root),
    }
    settings = Settings(
        profile="embedded",
        postgres=PostgresSettings(port=ports["postgres"], password=Secret(PASSWORD)),
        redis=RedisSettings(port=ports["valkey"], password=Secret(PASSWORD)),
        clickhouse=ClickHouseSettings(port=ports["clickhouse"], password=Secret(PASSWORD)),
    )
    engines = {name: Engine(name, port, environment, root / f"{name}.log") for name, port in ports.items()}
    return House(root, settings, engines)


@contextlib.contextmanager
def running_house(root: Path) -> Iterator[House]:
    house = build_house(root)
    try:
        for engine in house.engines.values():
            engine.start()
        for engine in house.engines.values():
            engine.wait()
        yield house
    finally:
        for engine in house.engines.values():
            engine.stop()


async def bring_forward(settings: Settings) -> None:
    """Migrate every store, waiting for engines that have only just opened their port."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            async for _ in migrate(settings):
                pass
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)
        else:
            return


@pytest.fixture(scope="session")
def house() -> Iterator[House]:
    """The session's engines, in a directory of their own.

    As root PostgreSQL runs as another user, who must be able to get there; below pytest's own directory the next
    pytest that starts would shut the way to it.
    """
    root = Path(tempfile.mkdtemp(prefix="tickgate-test-"))
    root.chmod(0o711)
    try:
        with running_house(root) as house:
            yield house
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def settings(house: House) -> Settings:
    """Settings of a migrated database of this test's own in PostgreSQL and ClickHouse, and an empty Redis one."""
    return new_databases(house)


def new_databases(house: House) -> Settings:
    """Return settings of migrated databases nobody has used; a module that shares them is quicker."""
    name = f"t_{secrets.token_hex(6)}"
    own = msgspec.structs.replace(
        house.settings,
        postgres=msgspec.structs.replace(house.settings.postgres, database=name),
        clickhouse=msgspec.structs.replace(house.settings.clickhouse, database=name),
    )
    asyncio.run(bring_forward(own))
    return own


__all__ = [
    "Engine",
    "House",
    "bindable",
    "build_house",
    "free_port",
    "free_ports",
    "house",
    "new_databases",
    "running_house",
    "settings",
]
