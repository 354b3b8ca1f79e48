"""Connect to Redis, Valkey or Dragonfly with bounds on everything, and turn its errors into ours."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import AuthenticationError, RedisError

from core.errors.exceptions import Misconfigured, Unavailable
from core.settings import RedisSettings, Settings

Result = TypeVar("Result")


class RedisClient:
    """One client over a bounded pool. Its defaults wait for ever, so every limit is set."""

    def __init__(self, redis: "Redis", timeout_s: float) -> None:
        self.redis = redis
        self._timeout_s = timeout_s

    async def ping(self) -> None:
        await self.ask(self.redis.ping())

    async def ask(self, answer: Awaitable[Result]) -> Result:
        """Await one command.

        Raises:
            Unavailable: no answer in time, or none at all.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                return await answer
        except (RedisError, OSError, TimeoutError) as e:
            raise Unavailable(
                "the queue does not answer", code="QUEUE_UNAVAILABLE", detail=repr(e)[:300]
            ) from e


def connect(settings: RedisSettings) -> "Redis":
    """Return a client that has not connected yet."""
    options: dict[str, Any] = {}
    if settings.secure:
        from redis.asyncio import SSLConnection  # noqa: PLC0415

        options["connection_class"] = SSLConnection
    pool = BlockingConnectionPool(
        host=settings.host,
        port=settings.port,
        db=settings.database,
        username=settings.user or None,
        password=settings.password.reveal() or None,
        max_connections=settings.connections_max,
        timeout=settings.command_timeout_s,
        socket_timeout=settings.command_timeout_s,
        socket_connect_timeout=settings.connect_timeout_s,
        **options,
    )
    return Redis(connection_pool=pool)


@asynccontextmanager
async def open_client(settings: Settings, _services: Mapping[str, Any]) -> AsyncIterator[RedisClient]:
    """Open the client.

    Raises:
        Unavailable: nobody answers yet. Misconfigured: wrong password.
    """
    redis = connect(settings.redis)
    client = RedisClient(redis, settings.redis.command_timeout_s)
    try:
        try:
            await client.ping()
        except Unavailable as e:
            if isinstance(e.__cause__, AuthenticationError):
                raise Misconfigured("Redis refuses our user or password", code="QUEUE_AUTH") from e
            raise
        yield client
    finally:
        await redis.aclose()
        await redis.connection_pool.disconnect()
