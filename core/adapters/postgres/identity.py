"""API clients in the ledger: who may ask for tokens, and what an operator does with them."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
import structlog

from core.adapters.postgres.pool import Postgres
from core.errors.exceptions import Conflict, NotFound
from core.ports.access import ApiClient, ClientRecord
from core.settings import Settings

log = structlog.get_logger(__name__)

REVOKED_DAYS: Final = 400
"""Longer than anything issued to a client is good for."""


class PostgresIdentity:
    """The `Identity` and `ClientRegistry` ports on PostgreSQL."""

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

    async def add(self, client: ApiClient) -> None:
        async with self._postgres.acquire() as connection:
            added = await connection.fetchval(
                "insert into api_clients (client_id, tenant, secret_hash, scopes) values ($1, $2, $3, $4)"
                " on conflict do nothing returning client_id",
                client.client_id,
                client.tenant,
                client.secret_hash,
                sorted(client.scopes),
            )
        if added is None:
            raise Conflict(f"there is a client {client.client_id!r} already", code="CLIENT_EXISTS")
        log.info("client.added", client=client.client_id, tenant=client.tenant)

    async def clients(self) -> Sequence[ClientRecord]:
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(
                "select client_id, tenant, scopes,"
                " (extract(epoch from created_at) * 1000)::bigint as created_at_ms,"
                " (extract(epoch from disabled_at) * 1000)::bigint as disabled_at_ms"
                " from api_clients order by tenant, client_id"
            )
        return [ClientRecord(**{**dict(row), "scopes": frozenset(row["scopes"])}) for row in rows]

    async def disable(self, client_id: str) -> None:
        async with self._postgres.acquire() as connection, connection.transaction():
            await _hold(connection, client_id)
            await connection.execute(
                "update api_clients set disabled_at = coalesce(disabled_at, now()) where client_id = $1",
                client_id,
            )
            await _end_everything(connection, client_id)
        log.info("client.disabled", client=client_id)

    async def rotate_secret(self, client_id: str, secret_hash: str, *, revoke: bool) -> None:
        async with self._postgres.acquire() as connection, connection.transaction():
            if (await _hold(connection, client_id))["disabled_at"] is not None:
                raise Conflict(f"the client {client_id!r} is disabled", code="CLIENT_DISABLED")
            await connection.execute(
                "update api_clients set secret_hash = $2 where client_id = $1", client_id, secret_hash
            )
            if revoke:
                await _end_everything(connection, client_id)
        log.info("client.rotated", client=client_id, revoked=revoke)


async def _hold(connection: asyncpg.Connection, client_id: str) -> asyncpg.Record:
    row = await connection.fetchrow(
        "select disabled_at from api_clients where client_id = $1 for update", client_id
    )
    if row is None:
        raise NotFound(f"there is no client {client_id!r}", code="CLIENT_NOT_FOUND")
    return row


async def _end_everything(connection: asyncpg.Connection, client_id: str) -> None:
    """Revoke tokens, refresh tokens and keys of the client: every process is told when this commits."""
    await connection.execute(
        "update api_keys set revoked_at = now()"
        " where owner_kind = 'client' and subject = $1 and revoked_at is null",
        client_id,
    )
    await connection.execute(
        "insert into revocations (credential, expires_at)"
        " values ('client:' || $1, now() + make_interval(days => $2))"
        " on conflict (credential) do update"
        " set revoked_at = excluded.revoked_at, expires_at = excluded.expires_at",
        client_id,
        REVOKED_DAYS,
    )


@asynccontextmanager
async def open_identity(_settings: Settings, services: Mapping[str, Any]) -> AsyncIterator[PostgresIdentity]:
    yield PostgresIdentity(services["postgres"])
