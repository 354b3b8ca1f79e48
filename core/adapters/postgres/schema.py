"""Bring PostgreSQL's schema forward: creates our database, applies steps in a transaction each, under one lock.

A step and its note are one transaction, so a step that was cut off never happened.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from core.adapters.postgres.pool import CONNECTION_ERRORS, Postgres
from core.errors.exceptions import Defect, Misconfigured, Unavailable
from core.ports.schemas import SchemaStep
from core.settings import PostgresSettings, Settings

MAINTENANCE_DATABASE: Final = "postgres"
LOCK_KEY: Final = 7_442_656_700  # any constant will do, as long as every migration takes the same one
LOCK_WAIT_S: Final = 600
"""How long another migration is waited for."""
HELD_TIMEOUT_S: Final = 10
TABLE_WAIT_S: Final = 30
"""How long a step waits for a table that others use; whoever comes after it waits as long."""


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
        try:
            async with self._connection.transaction():
                await self._connection.execute(f"set local lock_timeout = '{TABLE_WAIT_S}s'")
                await self._connection.execute(step.sql)
                await self._connection.execute(
                    "insert into schema_steps (number, name, checksum) values ($1, $2, $3)",
                    step.number,
                    step.name,
                    step.checksum,
                )
        except CONNECTION_ERRORS:
            raise
        except asyncpg.LockNotAvailableError as e:
            raise Unavailable(
                "others keep the ledger's tables; try again when less is going on", code="LEDGER_UNAVAILABLE"
            ) from e
        except asyncpg.InsufficientPrivilegeError as e:
            raise Misconfigured(
                "our user may not change PostgreSQL's schema", code="LEDGER_AUTH", detail=str(e)
            ) from e
        except asyncpg.PostgresError as e:
            raise Defect(f"PostgreSQL refuses step {step.number:04} {step.name}", detail=repr(e)[:300]) from e

    async def require_held(self) -> None:
        if self._connection.is_closed():
            raise Unavailable("the migration lock is lost", code="LEDGER_UNAVAILABLE")
        await self._connection.fetchval("select 1", timeout=HELD_TIMEOUT_S)


async def applied_steps(postgres: Postgres) -> Mapping[int, str]:
    """Return the checksum of every step applied, by number; nothing is written. Raises: Unavailable."""
    async with postgres.acquire() as connection:
        try:
            rows = await connection.fetch("select number, checksum from schema_steps")
        except asyncpg.UndefinedTableError:
            return {}
    return {row["number"]: row["checksum"] for row in rows}


@asynccontextmanager
async def open_schema(
    settings: Settings, waiting: Callable[[], None] = lambda: None
) -> AsyncIterator[PostgresSchema]:
    """Open our database, creating it where it is missing, and take the migration lock.

    waiting: called once if another migration has it.

    Raises:
        Unavailable: nobody answers yet, or the other migration does not end (code MIGRATION_RUNNING).
        Misconfigured: wrong user or password.
    """
    try:
        connection = await _connect_creating(settings.postgres)
        try:
            await _lock(connection, waiting)
            yield PostgresSchema(connection)
        finally:
            await connection.close(timeout=HELD_TIMEOUT_S)
    except CONNECTION_ERRORS as e:
        raise Unavailable("the ledger does not answer", code="LEDGER_UNAVAILABLE", detail=repr(e)) from e
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError) as e:
        raise Misconfigured("PostgreSQL refuses our user or password", code="LEDGER_AUTH") from e


async def _lock(connection: asyncpg.Connection, waiting: Callable[[], None]) -> None:
    if await connection.fetchval("select pg_try_advisory_lock($1)", LOCK_KEY):
        return
    waiting()
    try:
        await connection.execute(f"set lock_timeout = '{LOCK_WAIT_S}s'")
        await connection.execute("select pg_advisory_lock($1)", LOCK_KEY)
    except asyncpg.LockNotAvailableError as e:
        raise Unavailable(
            f"another migration has been running for more than {LOCK_WAIT_S} s", code="MIGRATION_RUNNING"
        ) from e


async def _connect_creating(postgres: PostgresSettings) -> asyncpg.Connection:
    try:
        return await _connect(postgres, postgres.database)
    except asyncpg.InvalidCatalogNameError:
        maintenance = await _connect(postgres, MAINTENANCE_DATABASE)
        try:
            quoted = postgres.database.replace('"', '""')
            await maintenance.execute(f'create database "{quoted}"')
        except (asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
            pass  # another migration was faster; the second error is its being so at the same moment
        except asyncpg.InsufficientPrivilegeError as e:
            raise Misconfigured("our user may not create PostgreSQL's database", code="LEDGER_AUTH") from e
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
