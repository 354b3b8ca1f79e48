"""Kept answers while Redis is killed, stopped, emptied, or comes back with what it had before."""

import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
import redis

from core.errors.exceptions import Unavailable
from core.infrastructure.central_hub import Hub
from core.settings import Settings
from tests.caches import FIRST_DAY, Desk, Ticks, day_bars, open_store
from tests.engines import PASSWORD, Engine, House, build_house, new_databases, wait_for

DAY = FIRST_DAY
QUERY = day_bars("EURUSD", DAY)


@pytest.fixture(scope="module")
def store(house: House) -> Settings:
    return new_databases(house)


@pytest.fixture
def redis_house(tmp_path: Path) -> Iterator[House]:
    """A Valkey of the test's own, to be killed."""
    house = build_house(tmp_path / "redis")
    house.engines["valkey"].start()
    house.engines["valkey"].wait()
    yield house
    house.engines["valkey"].send(signal.SIGCONT)
    house.engines["valkey"].stop()


@pytest.fixture
def valkey(redis_house: House) -> Engine:
    return redis_house.engines["valkey"]


@pytest.fixture
async def hub(store: Settings, redis_house: House) -> AsyncIterator[Hub]:
    async with open_store(msgspec.structs.replace(store, redis=redis_house.settings.redis)) as hub:
        yield hub


@pytest.fixture
def ticks(hub: Hub, request: pytest.FixtureRequest) -> Ticks:
    return Ticks(hub, request.node.name[-60:])


async def ask(desk: Desk, ticks: Ticks) -> dict[int, int]:
    return await desk.bars(QUERY, ticks.source)


async def kept_in_redis(hub: Hub, ticks: Ticks) -> None:
    """Have an answer of now in Redis, by a worker that knows how far the source has got."""
    desk = Desk(hub)
    desk.reads._sights.newest([ticks.source])
    await desk.settled()
    await ask(desk, ticks)
    await desk.settled()


async def until_it_is_asked_again(hub: Hub) -> None:
    """Wait until the cache no longer holds Redis to be away."""
    hub["cache"]._away_until_s = 0.0
    for _ in range(100):
        try:
            await hub["cache"].get("x")
        except Unavailable:
            hub["cache"]._away_until_s = 0.0
        else:
            return
    raise AssertionError("Redis did not come back")


def append_only_files(house: House) -> Path:
    (found,) = house.root.rglob("appendonlydir")
    return found


async def test_an_older_data_set_that_comes_back_makes_no_answer_stale(
    hub: Hub, ticks: Ticks, redis_house: House, valkey: Engine, tmp_path: Path
) -> None:
    await ticks.write("EURUSD", DAY)
    await kept_in_redis(hub, ticks)
    client = redis.Redis(port=valkey.port, password=PASSWORD)
    (key,) = client.keys("tickgate:cache:*")
    old = client.get(key)
    files, copy = append_only_files(redis_house), tmp_path / "older"
    wait_for(lambda: any(old in file.read_bytes() for file in files.iterdir()), "the answer in the file")
    shutil.copytree(files, copy)
    await ticks.write("EURUSD", DAY)
    await kept_in_redis(hub, ticks)
    assert client.get(key) != old

    valkey.stop(signal.SIGKILL)
    shutil.rmtree(files)
    shutil.copytree(copy, files)
    valkey.start()
    valkey.wait()
    wait_for(lambda: answers(client), "Valkey answering")
    assert client.get(key) == old, "it is the old answer that is back"
    await until_it_is_asked_again(hub)
    for desk in (Desk(hub), Desk(hub)):
        assert await ask(desk, ticks) == {DAY: 2}


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


async def test_while_redis_is_dead_answers_are_fresh_and_still_kept_in_the_process(
    hub: Hub, ticks: Ticks, valkey: Engine
) -> None:
    desk = Desk(hub)
    await ticks.write("EURUSD", DAY)
    assert await ask(desk, ticks) == {DAY: 1}
    valkey.stop(signal.SIGKILL)
    assert await ask(desk, ticks) == {DAY: 1}
    assert desk.loads == 1
    await ticks.write("EURUSD", DAY)
    assert await ask(desk, ticks) == {DAY: 2}
    assert await ask(Desk(hub), ticks) == {DAY: 2}


async def test_a_redis_that_stands_still_keeps_nobody_waiting_twice(
    hub: Hub, ticks: Ticks, valkey: Engine, redis_house: House
) -> None:
    await ticks.write("EURUSD", DAY)
    await kept_in_redis(hub, ticks)
    valkey.send(signal.SIGSTOP)
    desk = Desk(hub)
    assert await ask(desk, ticks) == {DAY: 1}
    assert hub["cache"]._away_until_s > 0, "the next ones do not even ask"
    await ticks.write("EURUSD", DAY)
    assert await ask(desk, ticks) == {DAY: 2}


async def test_an_emptied_redis_costs_a_load_and_nothing_else(hub: Hub, ticks: Ticks, valkey: Engine) -> None:
    await ticks.write("EURUSD", DAY)
    await kept_in_redis(hub, ticks)
    redis.Redis(port=valkey.port, password=PASSWORD).flushall()
    desk = Desk(hub)
    assert await ask(desk, ticks) == {DAY: 1}
    assert desk.loads == 1
