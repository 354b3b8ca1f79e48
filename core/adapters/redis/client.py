"""Connect to Redis through its ordinary client, for everything that is not the queue's hot path."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis, SSLConnection
from redis.exceptions import AuthenticationError, RedisError

from core.errors.exceptions import Misconfigured, Unavailable
from core.settings import RedisSettings, Settings

Result = TypeVar("Result")


class RedisClient:
    """A bounded pool with a time limit on everything."""

    def __init__(self, redis: "Redis", timeout_s: float) -> None:
        self.redis = redis
        self._timeout_s = timeout_s

    async def ask(self, answer: Awaitable[Result]) -> Result:
        """Await a command of this client. Raises: Unavailable."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await answer
        except (RedisError, OSError, TimeoutError) as e:
            raise Unavailable(
                "the fast store does not answer", code="REDIS_UNAVAILABLE", detail=repr(e)
            ) from e

    async def ping(self) -> None:
        await self.ask(self.redis.ping())


@asynccontextmanager
async def open_client(settings: Settings, _services: Mapping[str, Any]) -> AsyncIterator[RedisClient]:
    """Open the pool. An absent Redis is no reason not to start: it comes back by itself.

    Raises:
        Misconfigured: it is there and refuses our password.
    """
    redis = Redis(connection_pool=_pool(settings.redis))
    client = RedisClient(redis, settings.redis.command_timeout_s)
    try:
        try:
            await redis.ping()
        except AuthenticationError as e:
            raise Misconfigured("Redis refuses our password", code="REDIS_AUTH") from e
        except (RedisError, OSError, TimeoutError):
            pass
        yield client
    finally:
        await redis.aclose(close_connection_pool=True)


def _pool(redis: RedisSettings) -> BlockingConnectionPool:
    secure: dict[str, Any] = {"connection_class": SSLConnection} if redis.secure else {}
    return BlockingConnectionPool(
        host=redis.host,
        port=redis.port,
        db=redis.database,
        username=redis.user or None,
        password=redis.password.reveal() or None,
        max_connections=redis.connections_max,
        timeout=math.ceil(redis.command_timeout_s),
        socket_timeout=redis.command_timeout_s,
        socket_connect_timeout=redis.connect_timeout_s,
        **secure,
    )
