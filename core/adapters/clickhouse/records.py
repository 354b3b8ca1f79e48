"""Annotations beside the ticks they mark: the last revision of each counts, and one writer at a time makes the next.

ClickHouse cannot compare and set, so a write reads, compares and writes while it holds the record's lock. A write whose
answer is lost is asked for again: it finds its own version there, or writes the same row once more.
"""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from core.adapters.clickhouse.client import ClickHouse, traced
from core.adapters.clickhouse.reading import Condition
from core.errors.exceptions import Conflict, NotFound
from core.model.records import SHELVES, Annotation, Body, Record, RecordKind
from core.ports.locks import Locks
from core.settings import Settings

QUERY_TIMEOUT_S: Final = 8.0
"""A write asks twice, and has ended on the server as well before its lock could expire."""
READ_SETTINGS: Final = {"max_threads": 2}
INSERT_SETTINGS: Final = {"async_insert": 0, "insert_deduplicate": 0, "max_execution_time": QUERY_TIMEOUT_S}

_FIELDS: Final = tuple(field.name for field in msgspec.structs.fields(Annotation))
_COLUMNS: Final = ", ".join(("id", "version", "created_at_ms", "updated_at_ms", *_FIELDS))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Last:
    """The last revision of a name. record: None where it says that the record was deleted."""

    revision: int
    record: Record[Annotation] | None


class ClickHouseAnnotations:
    """The `Annotations` port on ClickHouse."""

    def __init__(self, clickhouse: ClickHouse, locks: Locks) -> None:
        self._clickhouse = clickhouse
        self._locks = locks

    async def create(
        self, kind: RecordKind, tenant: str, record_id: str, body: Body, *, version: str
    ) -> Record[Any]:
        async with self._locks.held(tenant, kind, record_id):
            last = await self._last(tenant, record_id)
            if last.record is None:
                return await self._write(tenant, last.revision, _made(record_id, version, _annotation(body)))
        if last.record.version != version:
            raise Conflict(f"{record_id!r} is there already", code="RECORD_EXISTS")
        return last.record

    async def read(self, kind: RecordKind, tenant: str, record_id: str) -> Record[Any]:
        found = await self._select(_of(tenant, "id = {id:String}", id=record_id), "id", 1)
        return _found(found[0] if found else None, record_id)

    async def page(
        self, kind: RecordKind, tenant: str, *, after: str | None, limit: int, where: Mapping[str, str]
    ) -> Sequence[Record[Any]]:
        condition = _of(tenant)
        if after is not None:
            condition.add("id > {after:String}", after=after)
        for name in SHELVES[kind].filters:
            if name in where:
                condition.add(f"{name} = {{{name}:String}}", **{name: where[name]})
        return await self._select(condition, "id", limit)

    async def update(
        self, kind: RecordKind, tenant: str, record_id: str, body: Body, *, expected: str | None, version: str
    ) -> Record[Any]:
        async with self._locks.held(tenant, kind, record_id):
            last = await self._last(tenant, record_id)
            record = _found(last.record, record_id)
            if record.version == version:
                return record
            _compare(record, expected)
            changed = _made(record_id, version, _annotation(body), record.created_at_ms)
            return await self._write(tenant, last.revision, changed)

    async def delete(self, kind: RecordKind, tenant: str, record_id: str, *, expected: str | None) -> None:
        async with self._locks.held(tenant, kind, record_id):
            last = await self._last(tenant, record_id)
            _compare(_found(last.record, record_id), expected)
            await self._insert(
                {"tenant": tenant, "id": record_id, "revision": last.revision + 1, "is_deleted": 1}
            )

    async def marks(
        self,
        tenant: str,
        symbol: str,
        *,
        start_ms: int | None,
        stop_ms: int | None,
        after: tuple[int, str] | None,
        limit: int,
    ) -> Sequence[Record[Annotation]]:
        condition = _of(tenant, "symbol = {symbol:String}", symbol=symbol)
        if start_ms is not None:
            condition.add("ifNull(stop_ms, start_ms) >= {start:Int64}", start=start_ms)
        if stop_ms is not None:
            condition.add("start_ms <= {stop:Int64}", stop=stop_ms)
        if after is not None:
            condition.add("(start_ms, id) > ({at:Int64}, {after:String})", at=after[0], after=after[1])
        return await self._select(condition, "start_ms, id", limit)

    async def _last(self, tenant: str, record_id: str) -> _Last:
        # Not FINAL, which would hide the revision that says it is deleted.
        condition = _of(tenant, "id = {id:String}", id=record_id)
        rows = await self._rows(
            f"select revision, is_deleted, {_COLUMNS} from annotations where {condition}"
            " order by revision desc limit 1",
            condition,
        )
        if not rows:
            return _Last(revision=0, record=None)
        revision, is_deleted, *row = rows[0]
        return _Last(revision=revision, record=None if is_deleted else _record(row))

    async def _select(self, condition: Condition, order: str, limit: int) -> Sequence[Record[Annotation]]:
        rows = await self._rows(
            f"select {_COLUMNS} from annotations final where {condition} order by {order} limit {int(limit)}",
            condition,
        )
        return [_record(row) for row in rows]

    async def _rows(self, select: str, condition: Condition) -> Sequence[Sequence[Any]]:
        return await self._clickhouse.rows(
            select, condition.parameters, timeout_s=QUERY_TIMEOUT_S, settings=READ_SETTINGS
        )

    async def _write(self, tenant: str, revision: int, record: Record[Annotation]) -> Record[Annotation]:
        head = {
            "tenant": tenant,
            "id": record.id,
            "revision": revision + 1,
            "version": record.version,
            "created_at_ms": record.created_at_ms,
            "updated_at_ms": record.updated_at_ms,
        }
        await self._insert({**head, **msgspec.structs.asdict(record.body)})
        return record

    async def _insert(self, row: Mapping[str, Any]) -> None:
        inserting = self._clickhouse.client.raw_insert(
            "annotations",
            insert_block=msgspec.json.encode(row),
            fmt="JSONEachRow",
            settings=traced(INSERT_SETTINGS),
        )
        await self._clickhouse.ask(inserting, timeout_s=QUERY_TIMEOUT_S)


def _of(tenant: str, clause: str = "", **parameters: Any) -> Condition:
    condition = Condition()
    condition.add("tenant = {tenant:String}", tenant=tenant)
    if clause:
        condition.add(clause, **parameters)
    return condition


def _annotation(body: Body) -> Annotation:
    assert isinstance(body, Annotation), "the shelf gives annotations only"
    return body


def _made(
    record_id: str, version: str, body: Annotation, created_at_ms: int | None = None
) -> Record[Annotation]:
    now_ms = time.time_ns() // 1_000_000
    created_at_ms = now_ms if created_at_ms is None else created_at_ms
    return Record(
        id=record_id,
        version=version,
        created_at_ms=created_at_ms,
        # Clocks of two machines differ; a record is never changed before it was made.
        updated_at_ms=max(now_ms, created_at_ms),
        body=body,
    )


def _record(row: Sequence[Any]) -> Record[Annotation]:
    record_id, version, created_at_ms, updated_at_ms, *fields = row
    return Record(
        id=record_id,
        version=version,
        created_at_ms=created_at_ms,
        updated_at_ms=updated_at_ms,
        body=Annotation(**dict(zip(_FIELDS, fields, strict=True))),
    )


def _found(record: Record[Annotation] | None, record_id: str) -> Record[Annotation]:
    if record is None:
        raise NotFound(f"there is no {record_id!r}", code="RECORD_NOT_FOUND")
    return record


def _compare(record: Record[Annotation], expected: str | None) -> None:
    if expected not in (None, record.version):
        raise Conflict(f"{record.id!r} has been written since", code="VERSION_MISMATCH")


@asynccontextmanager
async def open_records(
    _settings: Settings, services: Mapping[str, Any]
) -> AsyncIterator[ClickHouseAnnotations]:
    yield ClickHouseAnnotations(services["clickhouse"], services["locks"])
