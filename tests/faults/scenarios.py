"""Faults at the worst moment. Each is done to the real bridge, which must hold, and to a broken one, which must not."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

from core.infrastructure.central_hub import open_hub
from tests.faults.proxy import Trap
from tests.faults.world import World

INSERT = b"query_id=ticks"
MOMENT_TIMEOUT_S = 10.0
SNIPER = Path(__file__).parent / "sniper.py"
KILLS_IN_INSERT = 3
KILLS_BEHIND_THE_LOG_MAX = 20
# It takes two or three.


def die_with_an_insert_under_way(world: World) -> None:
    """The store stands still in an insert; then store and bridge are killed, so that this insert never happens."""
    clickhouse, bridge = world.engines["clickhouse"], world.children["bridge"]
    clickhouse.send(signal.SIGSTOP)
    world.let_run(0.7)
    bridge.kill()
    clickhouse.kill()
    world.wait_flowing()


def let_an_insert_arrive_late(world: World) -> None:
    """The bridge loses its connection in an insert and dies; its successor writes on; then the insert comes through."""
    assert world.stored is not None
    trap = world.stored.set_trap(Trap(INSERT, lose_reply=False))
    world.wait_for(trap.sprung.is_set, "an insert being cut off")
    world.children["bridge"].kill()
    world.wait_flowing()
    trap.release.set()
    world.wait_for(trap.delivered.is_set, "the late insert arriving")


def kill_the_store_inside_inserts(world: World) -> None:
    """The store dies between an insert's first write and its end, several times."""
    directory = asyncio.run(_directory(world))
    for _ in range(KILLS_IN_INSERT):
        world.wait_flowing()
        _shoot(world, directory, "tmp_insert")


def kill_the_store_behind_its_deduplication_log(world: World) -> None:
    """The store dies between noting an insert's token and making its rows visible."""
    directory = asyncio.run(_directory(world)) / "deduplication_logs"
    for _ in range(KILLS_BEHIND_THE_LOG_MAX):
        world.wait_flowing()
        _shoot(world, directory, "")
        if asyncio.run(_holes(world)):
            return


def _shoot(world: World, directory: Path, prefix: str) -> None:
    """Kill ClickHouse the instant a file of `directory` that begins with `prefix` is made or grows."""
    clickhouse = world.engines["clickhouse"]
    assert clickhouse.process is not None
    # A process of its own, because the instant lasts less than our threads wait for each other.
    arguments = [sys.executable, "-S", "-E", str(SNIPER), str(directory), prefix, str(clickhouse.process.pid)]
    subprocess.run(arguments, check=True, timeout=MOMENT_TIMEOUT_S)
    clickhouse.kill()


async def _directory(world: World) -> Path:
    query = "select data_paths[1] from system.tables where database = currentDatabase() and name = 'ticks'"
    async with open_hub(world.settings, {"clickhouse"}) as hub:
        result = await hub["clickhouse"].client.query(query)
    return Path(result.result_rows[0][0])


async def _holes(world: World) -> int:
    """How many seqs are missing below the highest."""
    world.supervise()
    async with open_hub(world.settings, {"clickhouse"}, patience_s=MOMENT_TIMEOUT_S) as hub:
        result = await hub["clickhouse"].client.query("select max(seq) - uniqExact(seq) from ticks")
    return int(result.result_rows[0][0])
