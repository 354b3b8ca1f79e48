"""Who may ask for tokens, from the ledger."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from core.adapters.postgres.pool import Postgres
from core.ports import ApiClient
from core.settings import Settings


class PostgresIdentity:
    """The `Identity` port on PostgreSQL."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def client(self, client_id: str) -> ApiClient | None:
        if "\0" in client_id:
            # PostgreSQL's text holds none, so no client can be named so.
            return None
        async with self._postgres.acquire() as connection:
            row = await connection.fetchrow(
                "select client_id, tenant, secret_hash, scopes from api_clients"
                " where client_id = $1 and disabled_at is null",
                client_id,
            )
        if row is None:
            return None
        return ApiClient(
            client_id=row["client_id"],
            tenant=row["tenant"],
            secret_hash=row["secret_hash"],
            scopes=frozenset(row["scopes"]),
        )


@asynccontextmanager
async def open_identity(_settings: Settings, services: Mapping[str, Any]) -> AsyncIterator[PostgresIdentity]:
    yield PostgresIdentity(services["postgres"])
