"""API keys in the ledger: made, listed, rotated and revoked, each within its tenant."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

import asyncpg
import structlog

from core.adapters.postgres.key_use import KeyUse
from core.adapters.postgres.key_verification import KeyVerifier
from core.adapters.postgres.pool import Postgres
from core.adapters.postgres.work import PostgresWork, work_of
from core.errors.exceptions import Conflict, NotFound
from core.model.keys import ApiKey, KeySecret, new_id
from core.model.principals import Principal
from core.ports.access import NewKey
from core.settings import Settings

log = structlog.get_logger(__name__)

GENERATIONS_MAX: Final = 1_000
KEYS_MAX: Final = 1_000
"""Of one tenant, neither revoked nor expired."""

_COLUMNS: Final = ", ".join(
    (
        "id::text, tenant, owner_kind, subject, parent::text, name, scopes, prefix",
        *(
            f"(extract(epoch from {name}) * 1000)::bigint as {name}_ms"
            for name in ("created_at", "rotated_at", "expires_at", "last_used_at", "revoked_at")
        ),
    )
)
_REVOKE_FAMILY: Final = (
    # Asked until it finds nothing: while one round waits for a key that is just making another, it cannot see that one.
    "with recursive family as (select id from api_keys where tenant = $1 and id = $2"
    " union select k.id from api_keys k join family on k.parent = family.id where k.tenant = $1)"
    " update api_keys set revoked_at = now()"
    " where tenant = $1 and revoked_at is null and id in (select id from family) returning id::text"
)


class PostgresApiKeys:
    """The `ApiKeys` port on PostgreSQL."""

    def __init__(self, postgres: Postgres, verifier: KeyVerifier, use: KeyUse) -> None:
        self._postgres = postgres
        self._verifier = verifier
        self._use = use

    async def verify(self, text: str) -> Principal:
        found = await self._verifier.verify(text)
        self._use.used(found.key_id)
        return found.principal

    def work(self, tenant: str) -> AbstractAsyncContextManager[PostgresWork]:
        return work_of(self._postgres, tenant)

    async def page(self, tenant: str, *, after: str | None, limit: int) -> Sequence[ApiKey]:
        async with self._postgres.of_tenant(tenant) as connection:
            rows = await connection.fetch(
                f"select {_COLUMNS} from api_keys where tenant = $1 and ($2::uuid is null or id > $2)"
                " order by api_keys.id limit $3",
                tenant,
                after,
                limit,
            )
        return [_key(row) for row in rows]

    async def create(self, work: PostgresWork, new: NewKey, secret: KeySecret) -> ApiKey:
        if new.parent is not None:
            await self._hold_parent(work, new.parent)
        row = await work.connection.fetchrow(
            "insert into api_keys (id, tenant, owner_kind, subject, parent, name, scopes, prefix, secret_hash,"
            " expires_at) select $1, $2, $3, $4, $5, $6, $7, $8, $9, to_timestamp($10)"
            " where (select count(*) from api_keys where tenant = $2 and revoked_at is null"
            f" and expires_at > now()) < $11 returning {_COLUMNS}",
            new_id(),
            work.tenant,
            new.owner_kind,
            new.subject,
            new.parent,
            new.name,
            sorted(new.scopes),
            secret.prefix,
            secret.sha256,
            new.expires_at_s,
            KEYS_MAX,
        )
        if row is None:
            raise Conflict(f"a tenant may have {KEYS_MAX} keys; revoke some first", code="TOO_MANY_KEYS")
        return _key(row)

    async def _hold_parent(self, work: PostgresWork, parent: str) -> None:
        """Whoever revokes the parent meanwhile waits for the new key, and revokes it as well."""
        row = await work.connection.fetchrow(
            "select revoked_at from api_keys where tenant = $1 and id = $2 for share", work.tenant, parent
        )
        if row is None or row["revoked_at"] is not None:
            raise Conflict("the key you use is revoked", code="KEY_ENDED")

    async def key(self, work: PostgresWork, key_id: str) -> ApiKey:
        row = await work.connection.fetchrow(
            f"select {_COLUMNS} from api_keys where tenant = $1 and id = $2 for update", work.tenant, key_id
        )
        return _key(_found(row))

    async def rotate(self, work: PostgresWork, key_id: str, secret: KeySecret, grace_s: int) -> ApiKey:
        row = await work.connection.fetchrow(
            "update api_keys set prefix = $3, secret_hash = $4, rotated_at = now(),"
            " old_prefix = case when $5 > 0 then prefix end,"
            " old_secret_hash = case when $5 > 0 then secret_hash end,"
            " old_expires_at = case when $5 > 0 then now() + make_interval(secs => $5) end"
            " where tenant = $1 and id = $2 and revoked_at is null and expires_at > now()"
            f" returning {_COLUMNS}",
            work.tenant,
            key_id,
            secret.prefix,
            secret.sha256,
            float(grace_s),
        )
        if row is None:
            await self.key(work, key_id)
            raise Conflict("the key is revoked or has expired", code="KEY_ENDED")
        self._verifier.forget({key_id})
        return _key(row)

    async def revoke(self, tenant: str, key_id: str) -> None:
        async with self._postgres.of_tenant(tenant) as connection:
            _found(
                await connection.fetchrow(
                    "select from api_keys where tenant = $1 and id = $2 for update", tenant, key_id
                )
            )
            ended: set[str] = set()
            for _ in range(GENERATIONS_MAX):
                rows = await connection.fetch(_REVOKE_FAMILY, tenant, key_id)
                ended |= {row["id"] for row in rows}
                if not rows:
                    break
        self._verifier.forget(ended)
        log.info("api_key.revoked", tenant=tenant, id=key_id, keys=len(ended))

    async def tenant_of(self, key_id: str) -> str:
        async with self._postgres.acquire() as connection:
            row = await connection.fetchrow("select tenant from api_keys where id = $1", key_id)
        return str(_found(row)["tenant"])


def _key(row: asyncpg.Record) -> ApiKey:
    fields: dict[str, Any] = dict(row)
    return ApiKey(**{**fields, "scopes": frozenset(fields["scopes"])})


def _found(row: Any) -> Any:
    if row is None:
        raise NotFound("there is no such key", code="KEY_NOT_FOUND")
    return row


@asynccontextmanager
async def open_api_keys(_settings: Settings, services: Mapping[str, Any]) -> AsyncIterator[PostgresApiKeys]:
    postgres = services["postgres"]
    use = KeyUse(postgres)
    async with use.noting():
        yield PostgresApiKeys(postgres, KeyVerifier(postgres, services["revocations"]), use)
