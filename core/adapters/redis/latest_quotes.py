"""The newest quote of each symbol in a hash a source: lossy by design, gone when Redis is emptied."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from core.adapters.redis.client import RedisClient
from core.settings import Settings

KEEP_S: Final = 7 * 86_400
"""A source that has been silent this long has no newest quote worth the memory."""


def _key(source: str) -> str:
    # The braces keep one source's keys on one shard.
    return f"tickgate:quotes:{{{source}}}"


class RedisLatestQuotes:
    """The `LatestQuotes` port on Redis."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def put(self, source: str, quotes: Mapping[str, bytes]) -> None:
        async with self._client.redis.pipeline(transaction=False) as pipeline:
            pipeline.hset(_key(source), mapping=dict(quotes))
            pipeline.expire(_key(source), KEEP_S)
            await self._client.ask(pipeline.execute())

    async def get(self, source: str, symbols: Sequence[str] | None) -> Mapping[str, bytes]:
        redis = self._client.redis
        if symbols is None:
            everything = await self._client.ask(redis.hgetall(_key(source)))  # type: ignore[arg-type]
            return {symbol.decode(): quote for symbol, quote in everything.items()}
        found = await self._client.ask(redis.hmget(_key(source), list(symbols)))  # type: ignore[arg-type]
        return {symbol: quote for symbol, quote in zip(symbols, found, strict=True) if quote is not None}


@asynccontextmanager
async def open_latest_quotes(
    _settings: Settings, services: Mapping[str, Any]
) -> AsyncIterator[RedisLatestQuotes]:
    yield RedisLatestQuotes(services["redis"])
