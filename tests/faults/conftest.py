"""Engines that may be killed, on memory where possible, and the seed every fault follows from."""

import asyncio
import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.settings import Settings
from tests.engines import bring_forward, build_house, listens, wait_for
from tests.faults.processes import Child
from tests.faults.world import FaultHouse, World, running_world

MEMORY = Path("/dev/shm")
MEMORY_BYTES_MIN = 2 * 1024**3


@pytest.fixture(scope="session")
def fault_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory on memory: a disk without a journal makes each fsync, and with it each test, many times slower."""
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_BYTES_MIN:
        directory = Path(tempfile.mkdtemp(prefix="tickgate-faults-", dir=MEMORY))
    else:
        directory = tmp_path_factory.mktemp("faults")
    for parent in (directory, *directory.parents[:3]):
        # As root PostgreSQL runs as another user, who must be able to get there.
        if os.getuid() == 0 and parent.stat().st_mode & 0o001 == 0:
            parent.chmod(0o711)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def fault_house(fault_directory: Path) -> Iterator[FaultHouse]:
    house = build_house(fault_directory / "house")
    engines = {
        engine.name: Child(engine.name, ["core.cli.engine", engine.name], engine.environment, engine.log)
        for engine in house.engines.values()
    }
    with contextlib.ExitStack() as stack:
        for engine in engines.values():
            stack.callback(engine.end)
            engine.start()
        for engine in house.engines.values():
            wait_for(lambda port=engine.port: listens(port), f"{engine.name} listening")
        yield FaultHouse(house, engines)


@pytest.fixture
def seed() -> int:
    """What chance does in this test; printed when it fails."""
    return int(os.environ.get("TICKGATE_TEST_SEED") or secrets.randbelow(10**9))


class Worlds:
    """Makes the world of one test, on databases of its own."""

    def __init__(self, fault_house: FaultHouse, directory: Path, seed: int) -> None:
        self._house = fault_house
        self._directory = directory
        self.seed = seed

    def settings(self) -> Settings:
        self._house.heal()
        name = f"t_{secrets.token_hex(6)}"
        replace = msgspec.structs.replace
        settings = self._house.house.settings
        own = replace(
            settings,
            postgres=replace(settings.postgres, database=name),
            clickhouse=replace(settings.clickhouse, database=name),
        )
        asyncio.run(bring_forward(own))
        return own

    def running(self, **options: Any) -> AbstractContextManager[World]:
        return running_world(self._house, self.settings(), self._directory, self.seed, **options)


@pytest.fixture
def worlds(
    fault_house: FaultHouse, fault_directory: Path, seed: int, request: pytest.FixtureRequest
) -> Worlds:
    return Worlds(fault_house, fault_directory / request.node.name, seed)
