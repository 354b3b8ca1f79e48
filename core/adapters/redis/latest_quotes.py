"""The newest quote of each symbol of each source, as JSON in one hash a source."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from core.adapters.redis.client import RedisClient
from core.settings import Settings


class RedisLatestQuotes:
    """The `LatestQuotes` port. The braces keep one source's keys on one shard."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def put(self, source: str, quotes: Mapping[str, bytes]) -> None:
        if quotes:
            await self._client.ask(self._client.redis.hset(_key(source), mapping=dict(quotes)))

    async def get(self, source: str, symbols: Sequence[str] | None) -> Mapping[str, bytes]:
        if symbols is None:
            found = await self._client.ask(self._client.redis.hgetall(_key(source)))
            return {symbol.decode(): quote for symbol, quote in found.items()}
        values = await self._client.ask(self._client.redis.hmget(_key(source), list(symbols)))
        return {symbol: value for symbol, value in zip(symbols, values, strict=True) if value is not None}


def _key(source: str) -> str:
    return f"tickgate:quotes:{{{source}}}"


@asynccontextmanager
async def open_latest_quotes(
    _settings: Settings, services: Mapping[str, Any]
) -> AsyncIterator[RedisLatestQuotes]:
    yield RedisLatestQuotes(services["redis"])
