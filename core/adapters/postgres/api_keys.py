"""API keys in the ledger, verified from memory.

What was verified is remembered for CACHED_S_MAX at most, and not beyond a revocation: the ledger's trigger tells every
process of a revoked key or a secret taken away, and the next request asks the ledger again. When a key was last used is
noted in memory and written in one statement now and then, so that no request waits for it.
"""

import asyncio
import hmac
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
import structlog

from core.adapters.postgres.pool import Postgres
from core.adapters.postgres.work import PostgresWork, work_of
from core.errors.exceptions import Conflict, NotFound, TickgateError, Unauthorized, Unavailable
from core.model.keys import ApiKey, KeySecret, hash_of, new_id, prefix_of
from core.model.principals import Principal, PrincipalKind
from core.ports import NewKey, Revocations
from core.settings import Settings
from core.telemetry import metrics

log = structlog.get_logger(__name__)

CACHED_S_MAX: Final = 60.0
CACHED_KEYS_MAX: Final = 10_000
USED_KEYS_MAX: Final = 10_000
LOOK_UPS_AT_ONCE: Final = 3
"""Fewer than the pool has connections: who tries made-up keys must not take them all."""
LOOK_UPS_MAX: Final = 300
USE_NOTED_EVERY_S: Final = 60.0
LAST_NOTE_TIMEOUT_S: Final = 2.0
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
_LOOK_UP: Final = (
    "select k.id::text, k.tenant, k.owner_kind, k.subject, k.scopes, k.prefix, k.secret_hash, k.old_secret_hash,"
    " extract(epoch from k.expires_at)::float8 as expires_at_s,"
    " extract(epoch from k.old_expires_at)::float8 as old_expires_at_s,"
    " extract(epoch from now())::float8 as now_s, c.scopes as client_scopes"
    " from api_keys k left join api_clients c"
    " on c.client_id = k.subject and c.tenant = k.tenant and c.disabled_at is null"
    " where (k.prefix = $1 or k.old_prefix = $1 and k.old_expires_at > now())"
    " and k.revoked_at is null and k.expires_at > now()"
)

_REVOKE_FAMILY: Final = (
    # Asked until it finds nothing: while one round waits for a key that is just making another, it cannot see that one.
    "with recursive family as (select id from api_keys where tenant = $1 and id = $2"
    " union select k.id from api_keys k join family on k.parent = family.id where k.tenant = $1)"
    " update api_keys set revoked_at = now()"
    " where tenant = $1 and revoked_at is null and id in (select id from family) returning id::text"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verified:
    """What is remembered of a key. credentials: the names it may be revoked under; known_at_s: the ledger's clock."""

    key_id: str
    principal: Principal
    credentials: tuple[str, ...]
    known_at_s: float
    until_s: float


class PostgresApiKeys:
    """The `ApiKeys` port on PostgreSQL."""

    def __init__(
        self, postgres: Postgres, revocations: Revocations, use_noted_every_s: float = USE_NOTED_EVERY_S
    ) -> None:
        self._postgres = postgres
        self._revocations = revocations
        self._use_noted_every_s = use_noted_every_s
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()
        self._used: dict[str, float] = {}
        self._look_ups = asyncio.Semaphore(LOOK_UPS_AT_ONCE)
        self._looking = 0

    async def verify(self, text: str) -> Principal:
        prefix = prefix_of(text)
        if prefix is None:
            raise _not_valid("malformed")
        digest = hash_of(text)
        found = self._verified.get(digest)
        now_s = time.time()
        if (
            found is None
            or found.until_s <= now_s
            or self._revocations.is_revoked(*found.credentials, issued_at_s=found.known_at_s)
        ):
            self._verified.pop(digest, None)
            found = self._verified[digest] = await self._look_up(prefix, digest)
            if len(self._verified) > CACHED_KEYS_MAX:
                self._verified.popitem(last=False)
        if len(self._used) < USED_KEYS_MAX:
            self._used[found.key_id] = now_s
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
        self._forget({key_id})
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
        self._forget(ended)
        log.info("api_key.revoked", tenant=tenant, id=key_id, keys=len(ended))

    async def tenant_of(self, key_id: str) -> str:
        async with self._postgres.acquire() as connection:
            row = await connection.fetchrow("select tenant from api_keys where id = $1", key_id)
        return str(_found(row)["tenant"])

    async def _look_up(self, prefix: str, digest: bytes) -> _Verified:
        if self._looking >= LOOK_UPS_MAX:
            raise Unavailable("too many unknown API keys at once", code="KEY_LOOK_UPS_BUSY")
        self._looking += 1
        try:
            async with self._look_ups, self._postgres.acquire() as connection:
                row = await connection.fetchrow(_LOOK_UP, prefix)
            verified = _verified(row, prefix, digest)
        except Unauthorized:
            metrics.KEY_LOOK_UPS.labels("refused").inc()
            raise
        finally:
            self._looking -= 1
        metrics.KEY_LOOK_UPS.labels("valid").inc()
        return verified

    def _forget(self, key_ids: set[str]) -> None:
        """Do not wait to be told what this process did itself."""
        for digest in [digest for digest, found in self._verified.items() if found.key_id in key_ids]:
            del self._verified[digest]

    async def note_use(self) -> None:
        """Write when keys were last used; what cannot be written now is kept for the next time."""
        used, self._used = self._used, {}
        if not used:
            return
        try:
            async with self._postgres.acquire() as connection:
                await connection.execute(
                    "update api_keys set last_used_at = greatest(last_used_at, to_timestamp(used.at_s))"
                    " from unnest($1::uuid[], $2::float8[]) as used (id, at_s) where api_keys.id = used.id",
                    list(used),
                    list(used.values()),
                )
        except TickgateError as e:
            self._used = {**used, **self._used}
            log.warning("api_keys.use_not_noted", keys=len(used), error=str(e))

    @asynccontextmanager
    async def noting_use(self) -> AsyncIterator[None]:
        """Write when keys were last used until left, and then once more."""
        noting = asyncio.create_task(self._note_use_for_ever(), name="api-keys")
        try:
            yield
        finally:
            noting.cancel()
            await asyncio.wait((noting,))
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_NOTE_TIMEOUT_S):
                    await self.note_use()

    async def _note_use_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._use_noted_every_s)
            await self.note_use()


def _verified(row: asyncpg.Record | None, prefix: str, digest: bytes) -> _Verified:
    """Raises: Unauthorized: there is no such key, or its secret is another, or its owner is gone."""
    if row is None:
        raise _not_valid("unknown")
    current = row["prefix"] == prefix
    if not hmac.compare_digest(digest, row["secret_hash"] if current else row["old_secret_hash"]):
        raise _not_valid("secret")
    kind = PrincipalKind(row["owner_kind"])
    scopes = frozenset(row["scopes"])
    credentials: tuple[str, ...] = (f"key:{row['id']}", f"key-secret:{prefix}")
    if kind is PrincipalKind.CLIENT:
        if row["client_scopes"] is None:
            raise _not_valid("owner")
        # A key can never do more than its owner may do now.
        scopes &= frozenset(row["client_scopes"])
        credentials += (f"client:{row['subject']}",)
    ends_at_s = row["expires_at_s"] if current else min(row["expires_at_s"], row["old_expires_at_s"])
    return _Verified(
        key_id=row["id"],
        principal=Principal(
            subject=row["subject"],
            tenant=row["tenant"],
            scopes=scopes,
            expires_at_s=int(ends_at_s),
            kind=kind,
            credential=credentials[0],
        ),
        credentials=credentials,
        known_at_s=row["now_s"],
        until_s=min(ends_at_s, time.time() + CACHED_S_MAX),
    )


def _key(row: asyncpg.Record) -> ApiKey:
    fields: dict[str, Any] = dict(row)
    return ApiKey(**{**fields, "scopes": frozenset(fields["scopes"])})


def _found(row: Any) -> Any:
    if row is None:
        raise NotFound("there is no such key", code="KEY_NOT_FOUND")
    return row


def _not_valid(detail: str) -> Unauthorized:
    return Unauthorized("the API key is not valid", code="INVALID_KEY", detail=detail)


@asynccontextmanager
async def open_api_keys(_settings: Settings, services: Mapping[str, Any]) -> AsyncIterator[PostgresApiKeys]:
    keys = PostgresApiKeys(services["postgres"], services["revocations"])
    async with keys.noting_use():
        yield keys
