"""Redis emptied, Redis and PostgreSQL killed, everything killed at once: ticks go on, and what can come back does."""

import asyncio
from collections.abc import Callable

import pytest

from core.errors.exceptions import Unavailable
from core.infrastructure.central_hub import open_hub
from core.settings import Settings
from tests.bridges import SOURCE
from tests.faults.conftest import Worlds
from tests.faults.tape import SYMBOLS
from tests.faults.world import World

pytestmark = pytest.mark.timeout(90)

FLUSHES = 5
STORE_KILLS = 3
PATIENCE_S = 10.0


async def _latest(settings: Settings) -> set[str]:
    async with open_hub(settings, {"redis", "latest_quotes"}) as hub:
        return set(await hub["latest_quotes"].get(SOURCE, None))


async def _flush(settings: Settings) -> None:
    async with open_hub(settings, {"redis"}, patience_s=PATIENCE_S) as hub, asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await hub["redis"].ask(hub["redis"].redis.flushall())
            except Unavailable:  # killed a moment ago: still loading what it had
                await asyncio.sleep(0.05)
            else:
                return


def _quotes_are_back(world: World) -> Callable[[], bool]:
    def back() -> bool:
        try:
            return asyncio.run(_latest(world.settings)) == set(SYMBOLS)
        except Unavailable:
            return False

    return back


def test_a_redis_emptied_and_killed_costs_no_tick_and_fills_again(worlds: Worlds) -> None:
    with worlds.running() as world:
        for _ in range(FLUSHES):
            asyncio.run(_flush(world.settings))
            world.wait_for(_quotes_are_back(world), "latest quotes being back")
        for _ in range(STORE_KILLS):
            world.engines["valkey"].kill(down_s=world.chance.uniform(0, 0.3))
            world.let_run(world.chance.uniform(0.2, 0.6))
        world.supervise()
        asyncio.run(_flush(world.settings))
        world.wait_for(_quotes_are_back(world), "latest quotes being back")
        world.assert_whole()


def test_a_killed_postgres_costs_no_tick(worlds: Worlds) -> None:
    with worlds.running() as world:
        for _ in range(STORE_KILLS):
            world.engines["postgres"].kill(down_s=world.chance.uniform(0, 0.3))
            world.let_run(world.chance.uniform(0.2, 1.0))
            if world.chance.random() < 0.5:
                world.children["bridge"].kill()
        world.assert_whole()


def test_everything_killed_at_once_comes_back_whole(worlds: Worlds) -> None:
    with worlds.running(worker=True) as world:
        world.wait_flowing()
        for child in world.processes.values():
            child.kill()
        world.wait_flowing()
        world.let_run(world.chance.uniform(0, 0.3))
        world.assert_whole()
        assert world.read_by_a_worker() == set(SYMBOLS)
