"""Refresh tokens in the ledger: families whose tokens replace each other, and end at once when one is used twice.

A rotation takes the family's row first, so two uses of one token are one after the other: the second finds the token
rotated. That is a reuse, whoever it is - a thief and a client that asks twice at once look the same - so it ends the
family and every access token issued from it. A client asks one at a time; it starts again with its own credentials.
Source: RFC 9700 section 4.14.2.
"""

import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
import structlog

from core.adapters.postgres.pool import Postgres
from core.ports.access import ApiClient, RefreshGrant, RefreshState, Revocations
from core.settings import AuthSettings, Settings

log = structlog.get_logger(__name__)

REVOKED_S: Final = 3_600
"""Longer than any access token lives."""
PURGED_ROWS: Final = 5_000
PURGES_MAX: Final = 1_000

_FIND: Final = (
    "select f.id::text as family, f.client_id, f.scopes, extract(epoch from f.created_at)::float8 as created_at_s,"
    " extract(epoch from t.created_at)::float8 as issued_at_s,"
    " extract(epoch from least(t.expires_at, f.expires_at))::float8 as expires_at_s,"
    " t.rotated_at is not null as rotated, f.revoked_at is not null as revoked,"
    " least(t.expires_at, f.expires_at) <= now() as expired"
    " from refresh_tokens t join refresh_families f on f.id = t.family"
    " where t.token_hash = $2 and t.tenant = $1 and f.tenant = $1"
)


class PostgresGrants:
    """The `Grants` port on PostgreSQL."""

    def __init__(self, postgres: Postgres, revocations: Revocations, auth: AuthSettings) -> None:
        self._postgres = postgres
        self._revocations = revocations
        self._auth = auth

    async def start(self, client: ApiClient, scopes: frozenset[str], family: str, token_hash: bytes) -> None:
        async with self._postgres.of_tenant(client.tenant) as connection:
            await connection.execute(
                "insert into refresh_families (id, tenant, client_id, scopes, expires_at)"
                " values ($1, $2, $3, $4, now() + make_interval(secs => $5))",
                uuid.UUID(family),
                client.tenant,
                client.client_id,
                sorted(scopes),
                float(self._auth.refresh_ttl_s),
            )
            await self._insert(connection, client.tenant, family, token_hash)

    async def find(self, tenant: str, token_hash: bytes) -> RefreshGrant | None:
        async with self._postgres.of_tenant(tenant) as connection:
            row = await connection.fetchrow(_FIND, tenant, token_hash)
        return None if row is None else self._grant(row)

    async def rotate(self, client: ApiClient, token_hash: bytes, new_hash: bytes) -> RefreshState:
        async with self._postgres.of_tenant(client.tenant) as connection:
            # Held by whoever comes first; the row itself is read after that, by a statement of its own.
            await connection.execute(
                "select from refresh_families where tenant = $1 and client_id = $2 and id ="
                " (select family from refresh_tokens where tenant = $1 and token_hash = $3) for update",
                client.tenant,
                client.client_id,
                token_hash,
            )
            row = await connection.fetchrow(_FIND, client.tenant, token_hash)
            if row is None or row["client_id"] != client.client_id:
                return RefreshState.ENDED
            grant = self._grant(row)
            if grant.state is RefreshState.GOOD:
                await connection.execute(
                    "update refresh_tokens set rotated_at = clock_timestamp() where tenant = $1 and token_hash = $2",
                    client.tenant,
                    token_hash,
                )
                await self._insert(connection, client.tenant, grant.family, new_hash)
        return grant.state

    async def revoke(self, tenant: str, family: str) -> None:
        async with self._postgres.of_tenant(tenant) as connection:
            await connection.execute(
                "update refresh_families set revoked_at = clock_timestamp()"
                " where tenant = $1 and id = $2 and revoked_at is null",
                tenant,
                uuid.UUID(family),
            )
        # The ledger has told every process by now; this one does not wait to hear of it.
        await self._revocations.revoke(f"family:{family}", time.time() + REVOKED_S)
        log.info("refresh.family_revoked", tenant=tenant, family=family)

    async def purge_expired(self) -> int:
        purged = 0
        for _ in range(PURGES_MAX):
            async with self._postgres.acquire() as connection:
                done = await connection.execute(
                    "delete from refresh_families where id = any(array(select f.id from refresh_families f"
                    " where f.expires_at < now() or not exists (select from refresh_tokens t"
                    " where t.family = f.id and t.rotated_at is null and t.expires_at >= now())"
                    " limit $1 for update skip locked))",
                    PURGED_ROWS,
                )
            count = int(done.rpartition(" ")[2])
            purged += count
            if count < PURGED_ROWS:
                break
        return purged

    async def _insert(
        self, connection: asyncpg.Connection, tenant: str, family: str, token_hash: bytes
    ) -> None:
        await connection.execute(
            "insert into refresh_tokens (token_hash, tenant, family, expires_at)"
            " values ($1, $2, $3, now() + make_interval(secs => $4))",
            token_hash,
            tenant,
            uuid.UUID(family),
            float(self._auth.refresh_idle_s),
        )

    def _grant(self, row: asyncpg.Record) -> RefreshGrant:
        if row["revoked"] or self._revocations.is_revoked(
            f"client:{row['client_id']}", issued_at_s=row["created_at_s"]
        ):
            state = RefreshState.ENDED
        elif row["rotated"]:
            state = RefreshState.REUSED
        else:
            state = RefreshState.ENDED if row["expired"] else RefreshState.GOOD
        return RefreshGrant(
            family=row["family"],
            client_id=row["client_id"],
            scopes=frozenset(row["scopes"]),
            issued_at_s=int(row["issued_at_s"]),
            expires_at_s=int(row["expires_at_s"]),
            state=state,
        )


@asynccontextmanager
async def open_grants(settings: Settings, services: Mapping[str, Any]) -> AsyncIterator[PostgresGrants]:
    yield PostgresGrants(services["postgres"], services["revocations"], settings.auth)
