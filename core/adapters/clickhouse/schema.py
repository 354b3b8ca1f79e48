"""Bring ClickHouse's schema forward. DDL is not transactional there, so every statement of a step is idempotent.

A step that was cut off is applied again from its beginning, and noted only once all of it is done.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from clickhouse_connect.driver import AsyncClient

from core.adapters.clickhouse.client import ClickHouse, connect
from core.ports.schemas import SchemaStep
from core.settings import Settings


class ClickHouseSchema:
    """The `Schema` port on ClickHouse. The ledger's migration lock is held around it."""

    def __init__(self, client: AsyncClient, clickhouse: ClickHouse) -> None:
        self._client = client
        self._clickhouse = clickhouse

    async def applied(self) -> Mapping[int, str]:
        await self._command(
            "create table if not exists schema_steps (number UInt32, name String, checksum String,"
            " applied_at DateTime default now()) engine = MergeTree order by number settings fsync_after_insert = 1"
        )
        result = await self._clickhouse.ask(self._client.query("select number, checksum from schema_steps"))
        return {row[0]: row[1] for row in result.result_rows}

    async def apply(self, step: SchemaStep) -> None:
        for statement in statements(step):
            await self._command(statement)
        await self._clickhouse.ask(
            self._client.command(
                "insert into schema_steps (number, name, checksum)"
                " select {number:UInt32}, {name:String}, {checksum:String}",
                parameters={"number": step.number, "name": step.name, "checksum": step.checksum},
            )
        )

    async def _command(self, statement: str) -> None:
        await self._clickhouse.ask(self._client.command(statement))


def statements(step: SchemaStep) -> list[str]:
    """Return the statements of a step, one by one as ClickHouse takes them."""
    return [
        statement.rstrip().rstrip(";")
        for statement in step.sql.split(";\n")
        if any(line.strip() and not line.strip().startswith("--") for line in statement.splitlines())
    ]


async def applied_steps(clickhouse: ClickHouse) -> Mapping[int, str]:
    """Return the checksum of every step applied, by number; nothing is written. Raises: Unavailable."""
    there = await clickhouse.rows(
        "select 1 from system.tables where database = currentDatabase() and name = 'schema_steps'"
    )
    rows = await clickhouse.rows("select number, checksum from schema_steps") if there else []
    return {row[0]: row[1] for row in rows}


@asynccontextmanager
async def open_schema(settings: Settings) -> AsyncIterator[ClickHouseSchema]:
    """Open our database, creating it where it is missing.

    Raises:
        Unavailable: nobody answers yet. Misconfigured: wrong user or password.
    """
    clickhouse = settings.clickhouse
    first = await connect(clickhouse, None)
    try:
        await ClickHouse(first, clickhouse.query_timeout_s).ask(
            first.command(f"create database if not exists `{clickhouse.database.replace('`', '')}`")
        )
    finally:
        await first.close()
    client = await connect(clickhouse, clickhouse.database)
    try:
        yield ClickHouseSchema(client, ClickHouse(client, clickhouse.query_timeout_s))
    finally:
        await client.close()
