"""A Valkey of one test module's own, emptied for every test, and both sides of the job queue on it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import redis

from core.adapters.redis.job_queue import RedisJobQueue, open_job_queue
from core.adapters.redis.job_queue_control import RedisQueueControl
from core.messages.jobs import JobState, JobStatus
from core.settings import Settings
from tests.engines import PASSWORD, House, build_house


@pytest.fixture(scope="module")
def queue_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Only its Valkey runs."""
    house = build_house(tmp_path_factory.mktemp("queue"))
    engine = house.engines["valkey"]
    engine.start()
    engine.wait()
    yield house
    engine.stop()


@pytest.fixture
def queue_valkey(queue_house: House) -> Iterator[redis.Redis]:
    client = redis.Redis(port=queue_house.engines["valkey"].port, password=PASSWORD, socket_timeout=5)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def queue_settings(queue_house: House, queue_valkey: redis.Redis) -> Settings:
    return queue_house.settings


@pytest.fixture
async def job_queue(queue_settings: Settings) -> AsyncIterator[RedisJobQueue]:
    async with open_job_queue(queue_settings, {}) as queue:
        async with asyncio.timeout(5):
            await queue.replies.wait()
            await queue.commands.wait()
        yield queue


@pytest.fixture
def queue_control(job_queue: RedisJobQueue) -> RedisQueueControl:
    return RedisQueueControl(job_queue)


async def until(fact: Callable[[], Awaitable[Any]], timeout_s: float = 10) -> Any:
    """Return the first truthy answer of `fact`."""
    async with asyncio.timeout(timeout_s):
        while not (found := await fact()):
            await asyncio.sleep(0.02)
    return found


async def reached(queue: RedisJobQueue, job_id: str, *statuses: JobStatus) -> JobState:
    """Return the job's state once it is one of `statuses`."""

    async def there() -> JobState | None:
        state = await queue.state(job_id, tenant="demo")
        return state if state.status in statuses else None

    found = await until(there)
    assert isinstance(found, JobState)
    return found
