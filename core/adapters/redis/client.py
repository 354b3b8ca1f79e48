"""Connect to Redis through its ordinary client, for everything that is not the queue's hot path."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis, SSLConnection
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from core.errors.exceptions import Misconfigured, Unavailable
from core.model.breaker import Breaker
from core.settings import RedisSettings, Settings
from core.telemetry import metrics
from core.telemetry.pools import PoolUse

Result = TypeVar("Result")


class RedisClient:
    """A bounded pool with a time limit on everything."""

    def __init__(self, redis: "Redis", settings: RedisSettings) -> None:
        self.redis = redis
        self.use = PoolUse("redis", settings.connections_max)
        self._breaker = Breaker()
        self._timeout_s = settings.command_timeout_s

    async def ask(self, answer: Awaitable[Result]) -> Result:
        """Await a command of this client. Raises: Unavailable."""
        if not self._breaker.admit():
            metrics.STORE_REFUSED.labels("redis").inc()
            _let_go(answer)
            raise Unavailable("the fast store does not answer", code="REDIS_UNAVAILABLE", detail="left alone")
        try:
            with self.use.asking():
                async with asyncio.timeout(self._timeout_s):
                    found = await answer
        except (RedisError, OSError, TimeoutError) as e:
            self._judge(e)
            raise Unavailable(
                "the fast store does not answer", code="REDIS_UNAVAILABLE", detail=repr(e)
            ) from e

        self._breaker.succeeded()
        return found

    def _judge(self, error: Exception) -> None:
        """A server that refuses a command answers all the same."""
        if isinstance(error, ResponseError):
            self._breaker.succeeded()
        else:
            self._breaker.failed()

    async def ping(self) -> None:
        await self.ask(self.redis.ping())

    async def version(self) -> str:
        """Return the server's version and what it calls itself. Raises: Unavailable."""
        told: Mapping[str, Any] = await self.ask(self.redis.info("server"))
        name = told.get("server_name") or ("dragonfly" if "dragonfly_version" in told else "redis")
        return f"{name} {told.get(f'{name}_version', told.get('redis_version', ''))}"


@asynccontextmanager
async def open_client(settings: Settings, _services: Mapping[str, Any]) -> AsyncIterator[RedisClient]:
    """Open the pool. An absent Redis is no reason not to start: it comes back by itself.

    Raises:
        Misconfigured: it is there and refuses our password.
    """
    redis = Redis(connection_pool=_pool(settings.redis))
    client = RedisClient(redis, settings.redis)
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


def _let_go(answer: Awaitable[Any]) -> None:
    """Close a command nobody will await; of other awaitables there is nothing to close."""
    if isinstance(answer, Coroutine):
        answer.close()


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
