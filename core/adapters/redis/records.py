"""Watchlists in Redis: a hash each, and a tenant's names in a sorted set. Whoever empties Redis forgets them.

A record is kept for 90 days after its last write. A script compares and sets, so that nothing comes in between. Names
whose record has expired are left out of every list, and taken out of the set by whoever comes across them.
"""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from core.adapters.redis.client import RedisClient
from core.adapters.redis.scripts import FORGET_NAMES, WRITE_RECORD
from core.errors.exceptions import Conflict, NotFound, TickgateError
from core.model.records import SHELVES, Body, Record, RecordKind
from core.settings import Settings

KEPT_MS: Final = 90 * 86_400_000
RECORDS_MAX: Final = 1_000
"""Of one tenant and kind: memory is what everybody shares here."""
_FIELDS: Final = ("version", "created_at_ms", "updated_at_ms", "body")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Keys:
    """Where the records of a tenant and kind are. The braces keep them on one shard: scripts touch several."""

    kind: RecordKind
    tenant: str

    @property
    def names(self) -> str:
        return f"tickgate:{self.kind}:{{{self.tenant}}}:names"

    def one(self, record_id: str) -> str:
        return f"tickgate:{self.kind}:{{{self.tenant}}}:one:{record_id}"


class RedisRecords:
    """The `Records` port on Redis."""

    def __init__(
        self, client: RedisClient, *, kept_ms: int = KEPT_MS, records_max: int = RECORDS_MAX
    ) -> None:
        self._client = client
        self._kept_ms = kept_ms
        self._records_max = records_max
        self._write_record = client.redis.register_script(WRITE_RECORD)
        self._forget_names = client.redis.register_script(FORGET_NAMES)

    async def create(
        self, kind: RecordKind, tenant: str, record_id: str, body: Body, *, version: str
    ) -> Record[Any]:
        keys = _Keys(kind=kind, tenant=tenant)
        answer = await self._write("create", keys, record_id, body, version=version)
        if answer == [b"TOO_MANY_RECORDS"] and await self._forget_expired(keys):
            answer = await self._write("create", keys, record_id, body, version=version)
        return _record(kind, record_id, _done(answer, record_id))

    async def read(self, kind: RecordKind, tenant: str, record_id: str) -> Record[Any]:
        (fields,) = await self._read(_Keys(kind=kind, tenant=tenant), [record_id])
        if fields is None:
            raise _refusal("RECORD_NOT_FOUND", record_id)
        return _record(kind, record_id, fields)

    async def page(
        self, kind: RecordKind, tenant: str, *, after: str | None, limit: int, where: Mapping[str, str]
    ) -> Sequence[Record[Any]]:
        assert not where, "the shelf names no filter"
        keys = _Keys(kind=kind, tenant=tenant)
        page: list[Record[Any]] = []
        # Each round goes on behind the names of the one before, and there are records_max names.
        while len(page) < limit:
            names = await self._names(keys, after, limit)
            found = dict(zip(names, await self._read(keys, names), strict=True))
            page += [_record(kind, name, fields) for name, fields in found.items() if fields is not None]
            await self._forget(keys, [name for name, fields in found.items() if fields is None])
            if len(names) < limit:
                break
            after = names[-1]
        return page[:limit]

    async def update(
        self, kind: RecordKind, tenant: str, record_id: str, body: Body, *, expected: str | None, version: str
    ) -> Record[Any]:
        keys = _Keys(kind=kind, tenant=tenant)
        answer = await self._write("update", keys, record_id, body, version=version, expected=expected)
        return _record(kind, record_id, _done(answer, record_id))

    async def delete(self, kind: RecordKind, tenant: str, record_id: str, *, expected: str | None) -> None:
        keys = _Keys(kind=kind, tenant=tenant)
        _done(await self._write("delete", keys, record_id, None, expected=expected), record_id)

    async def _write(
        self,
        deed: str,
        keys: _Keys,
        record_id: str,
        body: Body | None,
        *,
        version: str = "",
        expected: str | None = None,
    ) -> list[bytes]:
        text = b"" if body is None else msgspec.json.encode(body)
        now_ms = time.time_ns() // 1_000_000
        answer: list[bytes] = await self._client.ask(
            self._write_record(
                [keys.one(record_id), keys.names],
                [deed, record_id, version, expected or "", text, now_ms, self._kept_ms, self._records_max],
            )
        )
        return answer

    async def _names(self, keys: _Keys, after: str | None, limit: int) -> list[str]:
        start = "-" if after is None else f"({after}"
        names = await self._client.ask(
            self._client.redis.zrangebylex(keys.names, start, "+", start=0, num=limit)
        )
        return [name.decode() for name in names]

    async def _read(self, keys: _Keys, names: Sequence[str]) -> list[Sequence[bytes] | None]:
        if not names:
            return []
        async with self._client.redis.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.hmget(keys.one(name), list(_FIELDS))
            found = await self._client.ask(pipeline.execute())
        return [None if fields[0] is None else fields for fields in found]

    async def _forget_expired(self, keys: _Keys) -> int:
        return await self._forget(keys, await self._names(keys, None, self._records_max))

    async def _forget(self, keys: _Keys, names: Sequence[str]) -> int:
        if not names:
            return 0
        ones = [keys.one(name) for name in names]
        return int(await self._client.ask(self._forget_names([keys.names, *ones], list(names))))


def _record(kind: RecordKind, record_id: str, fields: Sequence[bytes]) -> Record[Any]:
    version, created_at_ms, updated_at_ms, body = fields
    return Record(
        id=record_id,
        version=version.decode(),
        created_at_ms=int(created_at_ms),
        updated_at_ms=int(updated_at_ms),
        body=msgspec.json.decode(body, type=SHELVES[kind].body),
    )


def _done(answer: Sequence[bytes], record_id: str) -> Sequence[bytes]:
    outcome, *fields = answer
    if outcome != b"DONE":
        raise _refusal(outcome.decode(), record_id)
    return fields


def _refusal(code: str, record_id: str) -> TickgateError:
    if code == "RECORD_NOT_FOUND":
        return NotFound(f"there is no {record_id!r}", code=code)
    return Conflict(
        {
            "RECORD_EXISTS": f"{record_id!r} is there already",
            "VERSION_MISMATCH": f"{record_id!r} has been written since",
            "TOO_MANY_RECORDS": "you have as many of these as one may have; delete some first",
        }[code],
        code=code,
    )


@asynccontextmanager
async def open_records(_settings: Settings, services: Mapping[str, Any]) -> AsyncIterator[RedisRecords]:
    yield RedisRecords(services["redis"])
