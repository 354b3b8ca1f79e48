"""The spool's disk is full, or the spool at its limit, while the bridge is away: reading stops, and nothing is lost."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import Worlds
from tests.faults.world import World

pytestmark = pytest.mark.timeout(90)

DISK_BYTES = 48 * 1024**2
AWAY_S = 3_600.0
FULL = '"event":"spool.full"'


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a few megabytes."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(tmp_path)]
    done = subprocess.run(mount, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def _until_full(world: World) -> None:
    # By the log: on a full disk there may be no room for the status file either.
    log = world.children["connector"].log
    before = log.read_text().count(FULL)
    world.wait_for(lambda: log.read_text().count(FULL) > before, "the spool being full")


def test_a_spool_at_its_limit_stops_reading_and_loses_nothing(worlds: Worlds) -> None:
    with worlds.running(connector={"spool_bytes_max": 500_000}) as world:
        world.children["bridge"].kill(down_s=AWAY_S)
        _until_full(world)
        world.children["connector"].kill()
        _until_full(world)
        world.children["bridge"].start_at_s = 0
        world.assert_whole()


def test_a_full_disk_stops_reading_and_loses_nothing(worlds: Worlds, small_disk: Path) -> None:
    with worlds.running(connector={"spool_directory": small_disk / "spool"}) as world:
        world.children["bridge"].kill(down_s=AWAY_S)
        filler = small_disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(65_536)):
                pass
        _until_full(world)
        world.children["connector"].kill()
        world.let_run(1.0)
        filler.unlink()
        world.children["bridge"].start_at_s = 0
        world.assert_whole()
