"""Records in tables of their own, a column for each field of the body."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
import msgspec

from core.adapters.postgres.pool import Postgres
from core.errors.exceptions import Conflict, NotFound
from core.model.records import SHELVES, Body, Record, RecordKind
from core.settings import Settings

_HEAD: Final = ("id", "version", "created_at", "updated_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """The statements of one kind. fields: of the body, in the order of their columns."""

    kind: RecordKind
    body: type[Body]
    fields: tuple[str, ...]

    @property
    def columns(self) -> str:
        return ", ".join((*_HEAD, *self.fields))

    @property
    def insert(self) -> str:
        names = ("tenant", "id", "version", *self.fields)
        places = ", ".join(f"${number}" for number in range(1, len(names) + 1))
        return (
            f"insert into {self.kind} ({', '.join(names)}) values ({places})"
            f" on conflict (tenant, id) do nothing returning {self.columns}"
        )

    @property
    def update(self) -> str:
        changes = ", ".join(f"{name} = ${number}" for number, name in enumerate(self.fields, 5))
        return (
            f"update {self.kind} set version = $3, updated_at = now(), {changes}"
            f" where tenant = $1 and id = $2 and ($4::text is null or version = $4) returning {self.columns}"
        )

    @property
    def select(self) -> str:
        return f"select {self.columns} from {self.kind} where tenant = $1 and id = $2"

    def page(self, where: Sequence[str]) -> str:
        conditions = "".join(f" and {name} = ${number}" for number, name in enumerate(where, 4))
        return (
            f"select {self.columns} from {self.kind} where tenant = $1 and ($2::text is null or id > $2)"
            f"{conditions} order by id limit $3"
        )

    @property
    def delete(self) -> str:
        return (
            f"delete from {self.kind} where tenant = $1 and id = $2 and ($3::text is null or version = $3)"
            " returning id"
        )

    def values(self, body: Body) -> tuple[Any, ...]:
        return tuple(getattr(body, name) for name in self.fields)

    def record(self, row: asyncpg.Record) -> Record[Any]:
        return Record(
            id=row["id"],
            version=row["version"],
            created_at_ms=round(row["created_at"].timestamp() * 1_000),
            updated_at_ms=round(row["updated_at"].timestamp() * 1_000),
            body=self.body(**{name: row[name] for name in self.fields}),
        )


def _table(kind: RecordKind) -> _Table:
    body = SHELVES[kind].body
    return _Table(kind=kind, body=body, fields=tuple(field.name for field in msgspec.structs.fields(body)))


_TABLES: Final = {kind: _table(kind) for kind, shelf in SHELVES.items() if shelf.keeper == "ledger_records"}


class PostgresRecords:
    """The `Records` port on PostgreSQL."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def create(
        self, kind: RecordKind, tenant: str, record_id: str, body: Body, *, version: str
    ) -> Record[Any]:
        table = _TABLES[kind]
        async with self._postgres.of_tenant(tenant) as connection:
            row = await connection.fetchrow(table.insert, tenant, record_id, version, *table.values(body))
            if row is None:
                row = await connection.fetchrow(table.select, tenant, record_id)
        if row is None or row["version"] != version:
            raise Conflict(f"{record_id!r} is there already", code="RECORD_EXISTS")
        return table.record(row)

    async def read(self, kind: RecordKind, tenant: str, record_id: str) -> Record[Any]:
        table = _TABLES[kind]
        async with self._postgres.of_tenant(tenant) as connection:
            row = await connection.fetchrow(table.select, tenant, record_id)
        return table.record(_found(row, record_id))

    async def page(
        self, kind: RecordKind, tenant: str, *, after: str | None, limit: int, where: Mapping[str, str]
    ) -> Sequence[Record[Any]]:
        table = _TABLES[kind]
        # Column names come from the shelf's own list, never from a caller.
        names = [name for name in SHELVES[kind].filters if name in where]
        values = [where[name] for name in names]
        async with self._postgres.of_tenant(tenant) as connection:
            rows = await connection.fetch(table.page(names), tenant, after, limit, *values)
        return [table.record(row) for row in rows]

    async def update(
        self, kind: RecordKind, tenant: str, record_id: str, body: Body, *, expected: str | None, version: str
    ) -> Record[Any]:
        table = _TABLES[kind]
        async with self._postgres.of_tenant(tenant) as connection:
            row = await connection.fetchrow(
                table.update, tenant, record_id, version, expected, *table.values(body)
            )
            if row is None:
                row = _found(await connection.fetchrow(table.select, tenant, record_id), record_id)
        if row["version"] != version:
            raise _mismatch(record_id)
        return table.record(row)

    async def delete(self, kind: RecordKind, tenant: str, record_id: str, *, expected: str | None) -> None:
        table = _TABLES[kind]
        async with self._postgres.of_tenant(tenant) as connection:
            if await connection.fetchrow(table.delete, tenant, record_id, expected) is None:
                _found(await connection.fetchrow(table.select, tenant, record_id), record_id)
                raise _mismatch(record_id)


def _found(row: asyncpg.Record | None, record_id: str) -> asyncpg.Record:
    if row is None:
        raise NotFound(f"there is no {record_id!r}", code="RECORD_NOT_FOUND")
    return row


def _mismatch(record_id: str) -> Conflict:
    return Conflict(f"{record_id!r} has been written since", code="VERSION_MISMATCH")


@asynccontextmanager
async def open_records(_settings: Settings, services: Mapping[str, Any]) -> AsyncIterator[PostgresRecords]:
    yield PostgresRecords(services["postgres"])
