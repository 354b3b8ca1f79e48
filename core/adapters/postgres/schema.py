"""Bring PostgreSQL's schema forward: creates our database, applies steps in a transaction each, under one lock."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from core.adapters.postgres.pool import CONNECTION_ERRORS
from core.errors.exceptions import Misconfigured, Unavailable
from core.ports.schemas import SchemaStep
from core.settings import PostgresSettings, Settings

MAINTENANCE_DATABASE: Final = "postgres"
LOCK_KEY: Final = 7_442_656_700  # any constant will do, as long as every migration takes the same one


class PostgresSchema:
    """The `Schema` port on PostgreSQL. Holding one open holds the migration lock of the whole house."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def applied(self) -> Mapping[int, str]:
        await self._connection.execute(
            "create table if not exists schema_steps (number integer primary key, name text not null,"
            " checksum text not null, applied_at timestamptz not null default now())"
        )
        rows = await self._connection.fetch("select number, checksum from schema_steps")
        return {row["number"]: row["checksum"] for row in rows}

    async def apply(self, step: SchemaStep) -> None:
        async with self._connection.transaction():
            await self._connection.execute(step.sql)
            await self._connection.execute(
                "insert into schema_steps (number, name, checksum) values ($1, $2, $3)",
                step.number,
                step.name,
                step.checksum,
            )


@asynccontextmanager
async def open_schema(settings: Settings) -> AsyncIterator[PostgresSchema]:
    """Open our database, creating it where it is missing, and take the migration lock.

    Raises:
        Unavailable: nobody answers yet. Misconfigured: wrong user or password.
    """
    try:
        connection = await _connect_creating(settings.postgres)
        try:
            await connection.execute("select pg_advisory_lock($1)", LOCK_KEY)
            yield PostgresSchema(connection)
        finally:
            await connection.close()
    except CONNECTION_ERRORS as e:
        raise Unavailable("the ledger does not answer", code="LEDGER_UNAVAILABLE", detail=repr(e)) from e
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError) as e:
        raise Misconfigured("PostgreSQL refuses our user or password", code="LEDGER_AUTH") from e


async def _connect_creating(postgres: PostgresSettings) -> asyncpg.Connection:
    try:
        return await _connect(postgres, postgres.database)
    except asyncpg.InvalidCatalogNameError:
        maintenance = await _connect(postgres, MAINTENANCE_DATABASE)
        try:
            quoted = postgres.database.replace('"', '""')
            await maintenance.execute(f'create database "{quoted}"')
        except asyncpg.DuplicateDatabaseError:
            pass  # another migration was faster
        finally:
            await maintenance.close()
        return await _connect(postgres, postgres.database)


async def _connect(postgres: PostgresSettings, database: str) -> asyncpg.Connection:
    return await asyncpg.connect(
        host=postgres.host,
        port=postgres.port,
        user=postgres.user,
        password=postgres.password.reveal(),
        database=database,
        ssl="verify-full" if postgres.secure else False,
        timeout=postgres.connect_timeout_s,
    )
