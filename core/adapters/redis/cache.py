"""Answers kept in Redis or Dragonfly: plain keys with an end. Whoever asks is never kept waiting for it.

After one question without an answer in time nobody asks for AWAY_S: a read that is cached costs no more than one that
is not.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from core.adapters.redis.client import RedisClient
from core.errors.exceptions import Unavailable
from core.settings import Settings

AWAY_S: Final = 1.0
_PREFIX: Final = "tickgate:cache:"
Result = TypeVar("Result")


class RedisCache:
    """The `Cache` port on Redis."""

    def __init__(self, client: RedisClient, answer_s_max: float) -> None:
        self._client = client
        self._answer_s_max = answer_s_max
        self._away_until_s = 0.0

    async def get(self, key: str) -> bytes | None:
        self._refuse_while_away()
        found: bytes | None = await self._ask(self._client.redis.get(_PREFIX + key))
        return found

    async def put(self, key: str, value: bytes, ttl_s: int) -> None:
        self._refuse_while_away()
        await self._ask(self._client.redis.set(_PREFIX + key, value, ex=ttl_s))

    def _refuse_while_away(self) -> None:
        if time.monotonic() < self._away_until_s:
            raise Unavailable("the cache does not answer", code="CACHE_AWAY")

    async def _ask(self, answer: Awaitable[Result]) -> Result:
        try:
            async with asyncio.timeout(self._answer_s_max):
                return await self._client.ask(answer)
        except TimeoutError as e:
            self._away_until_s = time.monotonic() + AWAY_S
            raise Unavailable("the cache does not answer in time", code="CACHE_AWAY") from e
        except Unavailable:
            self._away_until_s = time.monotonic() + AWAY_S
            raise


@asynccontextmanager
async def open_cache(settings: Settings, services: Mapping[str, Any]) -> AsyncIterator[RedisCache]:
    yield RedisCache(services["redis"], settings.cache.answer_ms_max / 1_000)
