"""Rate limits on a real Valkey, shared by several limiters; and what holds while it is stopped, slow or dead."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import msgspec
import pytest
import redis

from core.adapters.redis.link import Link, running
from core.adapters.redis.rate_limiter import RedisRateLimiter
from core.model.rates import Rate
from core.settings import Settings
from tests.engines import PASSWORD, House, build_house
from tests.faults.proxy import Proxy

TEN = Rate(group="read", count=10, period_s=60)
THOUSAND = Rate(group="read", count=1_000, period_s=60)
START_S = 60_000_000.0
ANSWER_S_MAX = 0.05
SLACK_S = 0.1
"""For a busy machine to be late."""


@pytest.fixture(scope="module")
def own_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A Valkey of this module's own, because it is stopped here."""
    house: House = build_house(tmp_path_factory.mktemp("limits"))
    engine = house.engines["valkey"]
    engine.start()
    engine.wait()
    yield house
    engine.stop()


@pytest.fixture
def valkey(own_house: House) -> Iterator[redis.Redis]:
    client = redis.Redis(port=own_house.engines["valkey"].port, password=PASSWORD, socket_timeout=5)
    client.flushall()
    yield client
    client.close()


class Fleet:
    """Limiters as of several gateway processes, on one clock."""

    def __init__(self, limiters: list[RedisRateLimiter], links: list[Link]) -> None:
        self.limiters = limiters
        self.links = links
        self.now_s = START_S

    async def admitted(self, tries: int, rate: Rate, caller: str = "a") -> int:
        count = len(self.limiters)
        verdicts = [await self.limiters[one % count].take(caller, [rate]) for one in range(tries)]
        return sum(verdict.allowed for verdict in verdicts)


async def open_fleet(
    stack: AsyncExitStack, settings: Settings, count: int, buckets_max: int = 1_000
) -> Fleet:
    links = [Link(settings.redis, "limits") for _ in range(count)]
    await stack.enter_async_context(running(*links))
    async with asyncio.timeout(5):
        for link in links:
            await link.wait()
    fleet = Fleet([], links)
    for link in links:
        limiter = RedisRateLimiter(link, ANSWER_S_MAX, lambda: fleet.now_s, buckets_max)
        stack.push_async_callback(limiter.close)
        fleet.limiters.append(limiter)
    return fleet


@pytest.fixture
async def three(own_house: House, valkey: redis.Redis) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        yield await open_fleet(stack, own_house.settings, 3)


@pytest.fixture
async def one(own_house: House, valkey: redis.Redis) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        yield await open_fleet(stack, own_house.settings, 1)


async def test_exactly_at_the_limit_is_allowed_and_one_more_refused(three: Fleet) -> None:
    assert await three.admitted(10, TEN) == 10
    verdict = await three.limiters[0].take("a", [TEN])
    assert not verdict.allowed
    assert verdict.retry_after_s > 0


async def test_three_processes_together_admit_no_more_than_the_limit(three: Fleet) -> None:
    assert 1_000 - 3 * 50 <= await three.admitted(1_500, THOUSAND) <= 1_000


async def test_many_at_once_are_admitted_up_to_the_limit(three: Fleet) -> None:
    takes = [limiter.take("a", [TEN]) for limiter in three.limiters for _ in range(20)]
    assert sum(verdict.allowed for verdict in await asyncio.gather(*takes)) <= 10
    assert not any(limiter.alone for limiter in three.limiters)


async def test_two_callers_do_not_share(three: Fleet) -> None:
    assert await three.admitted(20, TEN, "a") == 10
    assert await three.admitted(20, TEN, "b") == 10


async def test_there_is_no_second_burst_at_the_edge_of_the_window(three: Fleet) -> None:
    three.now_s = START_S + 59.9
    assert await three.admitted(20, TEN) == 10
    three.now_s = START_S + 60.0
    assert await three.admitted(20, TEN) == 0
    three.now_s = START_S + 90.0
    assert await three.admitted(20, TEN) == 5


async def test_the_strictest_of_several_rates_holds(one: Fleet) -> None:
    burst = Rate(group="read", count=3, period_s=1)
    verdicts = [await one.limiters[0].take("a", [TEN, burst]) for _ in range(4)]
    assert [verdict.allowed for verdict in verdicts] == [True, True, True, False]
    assert verdicts[-1].rate == burst


async def test_an_exhausted_caller_that_was_forgotten_is_exhausted_still(
    own_house: House, valkey: redis.Redis
) -> None:
    async with AsyncExitStack() as stack:
        fleet = await open_fleet(stack, own_house.settings, 1, buckets_max=5)
        assert await fleet.admitted(20, TEN, "attacker") == 10
        for number in range(20):
            await fleet.admitted(1, TEN, f"other {number}")
        assert await fleet.admitted(20, TEN, "attacker") == 0


async def test_every_key_has_an_end_and_names_nobody(three: Fleet, valkey: redis.Redis) -> None:
    await three.admitted(20, TEN, "secret-name")
    keys = valkey.keys("*")
    assert keys
    assert all(valkey.ttl(key) > 0 and b"secret-name" not in key for key in keys)


async def shared_again(fleet: Fleet) -> None:
    async with asyncio.timeout(15):
        while any(limiter.alone for limiter in fleet.limiters):
            for limiter in fleet.limiters:
                limiter.try_take("probe", [THOUSAND])
            await asyncio.sleep(0.05)


async def test_a_stopped_store_delays_nobody_for_long_and_each_process_keeps_the_limit(
    own_house: House, three: Fleet
) -> None:
    engine = own_house.engines["valkey"]
    engine.send(signal.SIGSTOP)
    try:
        began_s = time.monotonic()
        assert await three.admitted(60, TEN) == 30
        assert time.monotonic() - began_s < 3 * ANSWER_S_MAX + SLACK_S
    finally:
        engine.send(signal.SIGCONT)
    await shared_again(three)
    assert await three.admitted(60, TEN) == 0
    assert await three.admitted(20, TEN, "b") == 10


async def test_memory_is_bounded_while_the_store_is_stopped_and_resets_nobody(
    own_house: House, valkey: redis.Redis
) -> None:
    engine = own_house.engines["valkey"]
    async with AsyncExitStack() as stack:
        fleet = await open_fleet(stack, own_house.settings, 1, buckets_max=5)
        engine.send(signal.SIGSTOP)
        try:
            assert await fleet.admitted(20, TEN, "attacker") == 10
            for number in range(200):
                await fleet.admitted(1, TEN, f"other {number}")
            assert await fleet.admitted(20, TEN, "attacker") == 0
        finally:
            engine.send(signal.SIGCONT)


async def test_a_killed_store_delays_nobody_and_is_found_again(own_house: House, three: Fleet) -> None:
    engine = own_house.engines["valkey"]
    engine.stop(signal.SIGKILL)
    try:
        assert await three.admitted(60, TEN) == 30
    finally:
        engine.start()
        engine.wait()
    await shared_again(three)
    assert await three.admitted(30, TEN, "b") == 10


async def test_a_slow_store_counts_as_away(own_house: House, valkey: redis.Redis) -> None:
    proxy = Proxy(own_house.engines["valkey"].port)
    try:
        settings = msgspec.structs.replace(
            own_house.settings, redis=msgspec.structs.replace(own_house.settings.redis, port=proxy.port)
        )
        async with AsyncExitStack() as stack:
            fleet = await open_fleet(stack, settings, 1)
            proxy.weather.latency_s = 0.2
            began_s = time.monotonic()
            assert await fleet.admitted(20, TEN) == 10
            assert time.monotonic() - began_s < ANSWER_S_MAX + SLACK_S
            assert fleet.limiters[0].alone
            proxy.weather.latency_s = 0.0
            await shared_again(fleet)
    finally:
        proxy.close()
