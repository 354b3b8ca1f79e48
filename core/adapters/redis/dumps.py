"""Write Redis' records down, and bring them back with what is left of their time. Jobs, quotes, limits are not kept."""

import time
from collections.abc import AsyncIterable, AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from core.adapters.redis.client import RedisClient
from core.adapters.redis.records import KEPT_MS
from core.model.records import SHELVES, RecordKind
from core.ports.backups import Epochs, Sink
from core.settings import Settings

KEEPER: Final = "brief_records"
BATCH: Final = 500
FIELDS: Final = ("version", "created_at_ms", "updated_at_ms", "body")


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One record. fields: as they stand in its hash; expires_at_ms: when it is forgotten."""

    tenant: str
    id: str
    fields: list[str]
    expires_at_ms: int


class RedisSnapshot:
    """The `Snapshot` port on Redis: each record as it is when it is read."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self.parts: Sequence[str] = [str(kind) for kind in _kinds()]

    async def write(self, part: str, sink: Sink) -> None:
        async for tenant in _tenants(self._client, part):
            names = await self._client.ask(self._client.redis.zrange(_names(part, tenant), 0, -1))
            for start in range(0, len(names), BATCH):
                lines = await self._lines(
                    part, tenant, [name.decode() for name in names[start : start + BATCH]]
                )
                if lines:
                    await sink(b"".join(lines), len(lines))

    async def _lines(self, part: str, tenant: str, names: Sequence[str]) -> list[bytes]:
        async with self._client.redis.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.hmget(_one(part, tenant, name), list(FIELDS))
                pipeline.pttl(_one(part, tenant, name))
            found = await self._client.ask(pipeline.execute())
        now_ms = time.time_ns() // 1_000_000
        return [
            msgspec.json.encode(
                Line(
                    tenant=tenant,
                    id=name,
                    fields=[value.decode() for value in fields],
                    expires_at_ms=now_ms + left_ms,
                )
            )
            + b"\n"
            for name, fields, left_ms in zip(names, found[::2], found[1::2], strict=True)
            if fields[0] is not None and left_ms > 0
        ]


class RedisLoading:
    """The `Loading` port on Redis."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def occupied(self) -> str:
        for kind in _kinds():
            async for tenant in _tenants(self._client, kind):
                return f"{kind} of {tenant}"
        return ""

    async def clear(self) -> None:
        for kind in _kinds():
            async for tenant in _tenants(self._client, kind):
                names = await self._client.ask(self._client.redis.zrange(_names(kind, tenant), 0, -1))
                keys = [_one(kind, tenant, name.decode()) for name in names]
                await self._client.ask(self._client.redis.unlink(_names(kind, tenant), *keys))

    def order(self, parts: Collection[str]) -> Sequence[str]:
        return sorted(parts)

    async def load(self, part: str, pieces: AsyncIterable[bytes]) -> int:
        count = 0
        async for piece in pieces:
            lines = [msgspec.json.decode(line, type=Line) for line in piece.splitlines()]
            now_ms = time.time_ns() // 1_000_000
            async with self._client.redis.pipeline(transaction=False) as pipeline:
                for line in lines:
                    # What has run out meanwhile goes at once, as it would have gone there.
                    left_ms = max(1, line.expires_at_ms - now_ms)
                    one = _one(part, line.tenant, line.id)
                    pipeline.hset(one, mapping=dict(zip(FIELDS, line.fields, strict=True)))
                    pipeline.pexpire(one, left_ms)
                    pipeline.zadd(_names(part, line.tenant), {line.id: 0})
                    pipeline.pexpire(_names(part, line.tenant), KEPT_MS)
                await self._client.ask(pipeline.execute())
            count += len(lines)
        return count


class RedisDumps:
    """The `Dumps` port on Redis."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    @asynccontextmanager
    async def snapshot(self, _epochs: Epochs) -> AsyncIterator[RedisSnapshot]:
        yield RedisSnapshot(self._client)

    @asynccontextmanager
    async def loading(self) -> AsyncIterator[RedisLoading]:
        yield RedisLoading(self._client)


def _kinds() -> list[RecordKind]:
    return [kind for kind, shelf in SHELVES.items() if shelf.keeper == KEEPER]


def _names(kind: str, tenant: str) -> str:
    return f"tickgate:{kind}:{{{tenant}}}:names"


def _one(kind: str, tenant: str, record_id: str) -> str:
    return f"tickgate:{kind}:{{{tenant}}}:one:{record_id}"


async def _tenants(client: RedisClient, kind: str) -> AsyncIterator[str]:
    start, stop = _names(kind, "\0").split("\0")
    cursor = 0
    seen: set[str] = set()
    while True:
        cursor, keys = await client.ask(
            client.redis.scan(cursor=cursor, match=_names(kind, "*"), count=1_000)
        )
        for key in keys:
            tenant = key.decode().removeprefix(start).removesuffix(stop)
            if tenant not in seen:
                seen.add(tenant)
                yield tenant
        if not cursor:
            return


@asynccontextmanager
async def open_dumps(_settings: Settings, services: Mapping[str, Any]) -> AsyncIterator[RedisDumps]:
    yield RedisDumps(services["redis"])
