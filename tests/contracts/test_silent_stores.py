"""A store that accepts and never answers keeps nobody: each driver through our adapter, against a silent socket.

First through a proxy that lets the store answer until it is frozen, so that connections are there already.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from core.errors.exceptions import Unavailable
from core.infrastructure.central_hub import open_hub
from core.model.breaker import FAILURES_MAX
from core.settings import Settings
from core.telemetry import metrics
from tests.engines import House, new_databases
from tests.faults.proxy import Proxy

COMMAND_S = 0.5
PATIENCE_S = 4.0
"""Several times every limit that is set here, for a busy machine."""
REFUSED_S_MAX = 0.1


@dataclass(frozen=True)
class Store:
    """limits: settings of its section; ask: one cheap command through the adapter."""

    name: str
    limits: dict[str, float]
    ask: Callable[[Any], Awaitable[Any]]


async def _ask_postgres(postgres: Any) -> None:
    async with postgres.acquire() as connection:
        await connection.fetchval("select 1")


STORES = [
    Store(
        "postgres",
        {"connect_timeout_s": 1.0, "acquire_timeout_s": COMMAND_S, "command_timeout_s": COMMAND_S},
        _ask_postgres,
    ),
    Store(
        "redis",
        {"connect_timeout_s": 1.0, "command_timeout_s": COMMAND_S},
        lambda redis: redis.ask(redis.redis.get("x")),
    ),
    Store(
        "clickhouse",
        {"connect_timeout_s": 1.0, "query_timeout_s": COMMAND_S},
        lambda clickhouse: clickhouse.rows("select 1"),
    ),
]


@pytest.fixture(scope="module")
def shared(house: House) -> Settings:
    return new_databases(house)


@contextlib.asynccontextmanager
async def behind_a_proxy(shared: Settings, store: Store) -> AsyncIterator[tuple[Any, Proxy]]:
    """Yield the adapter, connected through a proxy that can fall silent."""
    section = getattr(shared, store.name)
    proxy = Proxy(section.port)
    try:
        changed = msgspec.structs.replace(section, port=proxy.port, **store.limits)
        settings = msgspec.structs.replace(shared, **{store.name: changed})
        async with open_hub(settings, {store.name}) as hub:
            yield hub[store.name], proxy
    finally:
        proxy.close()


@pytest.mark.parametrize("store", STORES, ids=lambda store: store.name)
async def test_a_store_that_falls_silent_keeps_nobody_and_is_left_alone_until_it_wakes(
    shared: Settings, store: Store
) -> None:
    async with behind_a_proxy(shared, store) as (adapter, proxy):
        await store.ask(adapter)
        proxy.weather.frozen = True
        try:
            for _ in range(FAILURES_MAX):
                began_s = time.monotonic()
                with pytest.raises(Unavailable):
                    await store.ask(adapter)
                assert time.monotonic() - began_s < PATIENCE_S
            began_s = time.monotonic()
            refused = await asyncio.gather(*(store.ask(adapter) for _ in range(50)), return_exceptions=True)
            assert {type(one) for one in refused} == {Unavailable}
            assert min(await _times(store, adapter)) < REFUSED_S_MAX
            assert time.monotonic() - began_s < PATIENCE_S
            assert adapter.use.standing.waiting == 0
        finally:
            proxy.weather.frozen = False
        async with asyncio.timeout(20):
            while not await _answers(store, adapter):
                await asyncio.sleep(0.05)
        await store.ask(adapter)
        assert adapter.use.standing.in_use == 0


async def _times(store: Store, adapter: Any) -> list[float]:
    """Return how long several askers are kept; at most one of them is the one that tries."""
    times = []
    for _ in range(3):
        began_s = time.monotonic()
        with contextlib.suppress(Unavailable):
            await store.ask(adapter)
        times.append(time.monotonic() - began_s)
    return times


async def _answers(store: Store, adapter: Any) -> bool:
    try:
        await store.ask(adapter)
    except Unavailable:
        return False
    return True


@pytest.mark.parametrize("store", STORES, ids=lambda store: store.name)
async def test_a_store_that_is_silent_from_the_start_is_waited_for_as_long_as_is_set(
    shared: Settings, store: Store
) -> None:
    section = getattr(shared, store.name)
    # Nobody takes the connections, but the kernel makes them.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        changed = msgspec.structs.replace(section, port=silent.getsockname()[1], **store.limits)
        settings = msgspec.structs.replace(shared, **{store.name: changed})
        began_s = time.monotonic()
        with pytest.raises(Unavailable):
            async with open_hub(settings, {store.name}) as hub:
                await store.ask(hub[store.name])
        assert time.monotonic() - began_s < PATIENCE_S


@pytest.mark.parametrize("store", STORES, ids=lambda store: store.name)
async def test_a_store_that_resets_every_connection_is_left_alone_until_it_takes_them(
    shared: Settings, store: Store
) -> None:
    async with behind_a_proxy(shared, store) as (adapter, proxy):
        await store.ask(adapter)
        proxy.weather.refusing = True
        proxy.cut()
        for _ in range(FAILURES_MAX):
            with pytest.raises(Unavailable):
                await store.ask(adapter)
        refused_before = _refused(store)
        with pytest.raises(Unavailable):
            await store.ask(adapter)
        assert _refused(store) == refused_before + 1
        proxy.weather.refusing = False
        async with asyncio.timeout(20):
            while not await _answers(store, adapter):
                await asyncio.sleep(0.05)


def _refused(store: Store) -> float:
    return metrics.REGISTRY.get_sample_value("tickgate_store_refused_total", {"store": store.name}) or 0.0


async def test_callers_who_give_up_do_not_make_a_silent_store_look_well(shared: Settings) -> None:
    async with behind_a_proxy(shared, STORES[0]) as (postgres, proxy):
        await _ask_postgres(postgres)
        proxy.weather.frozen = True
        try:
            for _ in range(FAILURES_MAX):
                with pytest.raises(Unavailable):
                    await _ask_postgres(postgres)
                with contextlib.suppress(TimeoutError, Unavailable):
                    async with asyncio.timeout(COMMAND_S / 10):
                        await _ask_postgres(postgres)
            refused_before = _refused(STORES[0])
            with pytest.raises(Unavailable):
                await _ask_postgres(postgres)
            assert _refused(STORES[0]) == refused_before + 1
        finally:
            proxy.weather.frozen = False


async def test_no_more_than_the_pool_holds_are_served_and_the_rest_are_counted_as_waiting(
    shared: Settings,
) -> None:
    settings = msgspec.structs.replace(
        shared, postgres=msgspec.structs.replace(shared.postgres, connections_max=2, acquire_timeout_s=5)
    )
    async with open_hub(settings, {"postgres"}) as hub:
        postgres, leave = hub["postgres"], asyncio.Event()

        async def hold() -> None:
            async with postgres.acquire():
                await leave.wait()

        holding = [asyncio.create_task(hold()) for _ in range(5)]
        async with asyncio.timeout(5):
            while postgres.use.standing.waiting < 3:
                await asyncio.sleep(0.01)
        standing = postgres.use.standing
        assert (standing.in_use, standing.waiting, standing.size) == (2, 3, 2)
        leave.set()
        await asyncio.gather(*holding)
        assert postgres.use.standing.in_use == 0
