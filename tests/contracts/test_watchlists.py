"""Watchlists beyond the records' suite: they expire, vanish from lists, are limited, and survive an emptied Redis."""

import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis

from core.adapters.redis.client import RedisClient, open_client
from core.adapters.redis.records import KEPT_MS, RedisRecords
from core.errors.exceptions import Conflict, NotFound
from core.model.records import Record, RecordKind, Watchlist
from core.settings import Settings

KIND = RecordKind.WATCHLISTS
DAY_MS = 86_400_000


@pytest.fixture
async def client(queue_settings: Settings) -> AsyncIterator[RedisClient]:
    async with open_client(queue_settings, {}) as client:
        yield client


@pytest.fixture
def keeper(client: RedisClient) -> RedisRecords:
    return RedisRecords(client, records_max=5)


async def create(keeper: RedisRecords, record_id: str, number: int = 0) -> Record[Any]:
    body = Watchlist(title=f"List {number}", symbols=["EURUSD"])
    return await keeper.create(KIND, "demo", record_id, body, version=secrets.token_hex(16))


async def update(keeper: RedisRecords, record_id: str) -> Record[Any]:
    body = Watchlist(title="Later", symbols=["EURUSD"])
    return await keeper.update(KIND, "demo", record_id, body, expected=None, version=secrets.token_hex(16))


async def listed(keeper: RedisRecords, after: str | None = None, limit: int = 100) -> list[str]:
    return [record.id for record in await keeper.page(KIND, "demo", after=after, limit=limit, where={})]


def expire(valkey: redis.Redis, *names: str) -> None:
    """Let records go as they would 90 days after their last write."""
    assert valkey.delete(*(f"tickgate:watchlists:{{demo}}:one:{name}" for name in names)) == len(names)


async def test_every_write_keeps_a_record_and_its_name_for_90_days_more(
    keeper: RedisRecords, queue_valkey: redis.Redis
) -> None:
    await create(keeper, "a")
    keys = ["tickgate:watchlists:{demo}:one:a", "tickgate:watchlists:{demo}:names"]
    for key in keys:
        queue_valkey.pexpire(key, DAY_MS)
    await update(keeper, "a")
    assert KEPT_MS == 90 * DAY_MS
    assert all(KEPT_MS - 60_000 < queue_valkey.pttl(key) <= KEPT_MS for key in keys)


async def test_a_read_keeps_nothing_longer(keeper: RedisRecords, queue_valkey: redis.Redis) -> None:
    await create(keeper, "a")
    key = "tickgate:watchlists:{demo}:one:a"
    queue_valkey.pexpire(key, DAY_MS)
    await keeper.read(KIND, "demo", "a")
    await listed(keeper)
    assert queue_valkey.pttl(key) <= DAY_MS


async def test_a_record_that_expires_by_itself_is_not_found(client: RedisClient) -> None:
    keeper = RedisRecords(client, kept_ms=1)
    await create(keeper, "a")
    found = await listed(keeper)
    while found:
        found = await listed(keeper)
    with pytest.raises(NotFound):
        await keeper.read(KIND, "demo", "a")


@pytest.mark.parametrize("gone", ["a", "bc", "ab", "abcde", "e", "ae"])
@pytest.mark.parametrize("limit", [1, 2, 5])
async def test_what_expired_vanishes_from_lists_without_a_short_page(
    keeper: RedisRecords, queue_valkey: redis.Redis, gone: str, limit: int
) -> None:
    for name in "abcde":
        await create(keeper, name)
    expire(queue_valkey, *gone)
    left = [name for name in "abcde" if name not in gone]
    assert await listed(keeper, limit=limit) == left[:limit]
    assert await listed(keeper) == left
    names = queue_valkey.zrange("tickgate:watchlists:{demo}:names", 0, -1)
    assert [name.decode() for name in names] == left


async def test_an_expired_name_is_free(keeper: RedisRecords, queue_valkey: redis.Redis) -> None:
    await create(keeper, "a")
    expire(queue_valkey, "a")
    made = await create(keeper, "a", 2)
    assert await keeper.read(KIND, "demo", "a") == made
    assert await listed(keeper) == ["a"]


async def test_a_tenant_has_so_many_and_expired_ones_do_not_count(
    keeper: RedisRecords, queue_valkey: redis.Redis
) -> None:
    for name in "abcde":
        await create(keeper, name)
    with pytest.raises(Conflict, match="TOO_MANY_RECORDS"):
        await create(keeper, "f")
    await update(keeper, "e")
    expire(queue_valkey, "b")
    await create(keeper, "f")
    assert await listed(keeper) == ["a", "c", "d", "e", "f"]


async def test_an_emptied_redis_forgets_them_and_takes_new_ones(
    keeper: RedisRecords, queue_valkey: redis.Redis
) -> None:
    await create(keeper, "a")
    queue_valkey.flushall()
    queue_valkey.script_flush()
    assert await listed(keeper) == []
    made = await create(keeper, "a")
    assert await keeper.read(KIND, "demo", "a") == made
