"""Records in tables of their own, a column for each field of the body."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import asyncpg

from core.adapters.postgres.pool import Postgres
from core.adapters.postgres.record_tables import Table, described
from core.errors.exceptions import Conflict, NotFound
from core.model.records import SHELVES, Body, Record, RecordKind
from core.settings import Settings

TABLES: Final = {
    kind: Table(**described(kind)) for kind, shelf in SHELVES.items() if shelf.keeper == "ledger_records"
}


class PostgresRecords:
    """The `Records` port on PostgreSQL. tables: of the kinds it keeps."""

    def __init__(self, postgres: Postgres, tables: Mapping[RecordKind, Table]) -> None:
        self._postgres = postgres
        self._tables = tables

    async def create(
        self, kind: RecordKind, tenant: str, record_id: str, body: Body, *, version: str
    ) -> Record[Any]:
        table = self._tables[kind]
        async with self._postgres.of_tenant(tenant) as connection:
            with _terminal_of_one():
                row = await connection.fetchrow(table.insert, tenant, record_id, version, *table.values(body))
            if row is None:
                row = await connection.fetchrow(table.select, tenant, record_id)
        if row is None or row["version"] != version:
            raise Conflict(f"{record_id!r} is there already", code="RECORD_EXISTS")
        return table.record(row)

    async def read(self, kind: RecordKind, tenant: str, record_id: str) -> Record[Any]:
        table = self._tables[kind]
        async with self._postgres.of_tenant(tenant) as connection:
            row = await connection.fetchrow(table.select, tenant, record_id)
        return table.record(_found(row, record_id))

    async def page(
        self, kind: RecordKind, tenant: str, *, after: str | None, limit: int, where: Mapping[str, str]
    ) -> Sequence[Record[Any]]:
        table = self._tables[kind]
        names = table.filters(where)
        values = [where[name] for name in names]
        async with self._postgres.of_tenant(tenant) as connection:
            rows = await connection.fetch(table.page(names), tenant, after, limit, *values)
        return [table.record(row) for row in rows]

    async def update(
        self, kind: RecordKind, tenant: str, record_id: str, body: Body, *, expected: str | None, version: str
    ) -> Record[Any]:
        table = self._tables[kind]
        async with self._postgres.of_tenant(tenant) as connection:
            with _terminal_of_one():
                row = await connection.fetchrow(
                    table.update, tenant, record_id, version, expected, *table.values(body)
                )
            if row is None:
                row = _found(await connection.fetchrow(table.select, tenant, record_id), record_id)
        if row["version"] != version:
            raise _mismatch(record_id)
        return table.record(row)

    async def delete(self, kind: RecordKind, tenant: str, record_id: str, *, expected: str | None) -> None:
        table = self._tables[kind]
        async with self._postgres.of_tenant(tenant) as connection:
            try:
                gone = await connection.fetchrow(table.delete, tenant, record_id, expected)
            except asyncpg.ForeignKeyViolationError as e:
                raise Conflict(f"{record_id!r} has traded, and stays", code="RECORD_IN_USE") from e
            if gone is None:
                _found(await connection.fetchrow(table.select, tenant, record_id), record_id)
                raise _mismatch(record_id)


@contextmanager
def _terminal_of_one() -> Iterator[None]:
    """Records have one constraint beside their name: a terminal holds one account."""
    try:
        yield
    except asyncpg.UniqueViolationError as e:
        raise Conflict("another account is at this terminal", code="TERMINAL_TAKEN") from e


def _found(row: asyncpg.Record | None, record_id: str) -> asyncpg.Record:
    if row is None:
        raise NotFound(f"there is no {record_id!r}", code="RECORD_NOT_FOUND")
    return row


def _mismatch(record_id: str) -> Conflict:
    return Conflict(f"{record_id!r} has been written since", code="VERSION_MISMATCH")


@asynccontextmanager
async def open_records(_settings: Settings, services: Mapping[str, Any]) -> AsyncIterator[PostgresRecords]:
    yield PostgresRecords(services["postgres"], TABLES)
