"""Idempotency keys in the ledger: a request is claimed, done once, and answered the same ever after.

What can be done in one transaction is done in `work`: effect and answer commit together, and whoever dies leaves
nothing behind. What cannot is claimed beforehand, and a claim is a lease: a gateway that dies leaves it behind; when it
has run out, the next try takes it over and does the request again. So that must bear repetition.
"""

import hashlib
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
import structlog

from core.adapters.postgres.pool import Postgres
from core.adapters.postgres.sealing import key_hash, seal, unseal
from core.adapters.postgres.work import PostgresWork
from core.errors.exceptions import Conflict, Defect, Invalid
from core.ports.idempotency import AnsweredBefore, IdempotentRequest, StoredAnswer
from core.settings import Settings

log = structlog.get_logger(__name__)

LEASE_S: Final = 60
"""Longer than any idempotent route may take."""
TRIES_MAX: Final = 3
PURGED_ROWS: Final = 5_000
PURGES_MAX: Final = 1_000

_ROW: Final = "tenant = $1 and subject = $2 and key_hash = $3"
_CLAIM: Final = (
    "insert into idempotency_keys"
    " (tenant, subject, key_hash, fingerprint, owner, lease_expires_at, expires_at)"
    " values ($1, $2, $3, $4, $5, now() + make_interval(secs => $6), now() + make_interval(secs => $7))"
    " on conflict do nothing returning true"
)
_READ: Final = (
    "select fingerprint, status, answer, expires_at < now() as expired, lease_expires_at < now() as lapsed"
    f" from idempotency_keys where {_ROW}"
)
_TAKE_OVER: Final = (
    # A row that is locked is being worked on, however old its lease: nobody waits for it.
    "update idempotency_keys set fingerprint = $4, owner = $5, created_at = now(), status = null, answer = null,"
    " lease_expires_at = now() + make_interval(secs => $6), expires_at = now() + make_interval(secs => $7)"
    f" where {_ROW} and ctid = (select ctid from idempotency_keys where {_ROW} and (expires_at < now()"
    " or status is null and lease_expires_at < now() and fingerprint = $4) for update skip locked)"
    " returning true"
)
_LOOK: Final = (
    # The lock tells of requests that are being done; what they write, nobody else sees before it is done.
    f"select pg_try_advisory_xact_lock($4) as ours, k.* from (select) asked left join ({_READ}) k on true"
)
_ANSWER: Final = (
    "insert into idempotency_keys"
    " (tenant, subject, key_hash, fingerprint, owner, lease_expires_at, expires_at, status, answer)"
    " values ($1, $2, $3, $4, $5, now(), now() + make_interval(secs => $6), $7, $8)"
    " on conflict (tenant, subject, key_hash) do update set fingerprint = excluded.fingerprint, owner = excluded.owner,"
    " created_at = now(), lease_expires_at = excluded.lease_expires_at, expires_at = excluded.expires_at,"
    " status = excluded.status, answer = excluded.answer where idempotency_keys.expires_at < now()"
    " or idempotency_keys.status is null and idempotency_keys.lease_expires_at < now() returning true"
)


class PostgresIdempotency:
    """The `Idempotency` port on PostgreSQL. lease_s: of a claim; kept_s: of an answer."""

    def __init__(self, postgres: Postgres, kept_s: int, lease_s: float = LEASE_S) -> None:
        self._postgres = postgres
        self._kept_s = kept_s
        self._lease_s = lease_s

    async def claim(self, request: IdempotentRequest) -> "PostgresClaim | StoredAnswer":
        name, owner = (request.tenant, request.subject, key_hash(request)), uuid.uuid4()
        asked = (*name, request.fingerprint, owner, float(self._lease_s), float(self._kept_s))
        for _ in range(TRIES_MAX):
            # A claim that a crash loses was of nothing that is kept: its answer is committed later, and waits for both.
            async with self._postgres.of_tenant(request.tenant, durable=False) as connection:
                if await connection.fetchval(_CLAIM, *asked):
                    return PostgresClaim(self._postgres, request, owner)
                row = await connection.fetchrow(_READ, *name)
                if row is None:
                    # It was released between the two statements: now it is free.
                    continue
                if (answer := _answer_in(row, request)) is not None:
                    return answer
                if not (row["expired"] or row["lapsed"]):
                    break
                if await connection.fetchval(_TAKE_OVER, *asked):
                    return PostgresClaim(self._postgres, request, owner)
        raise _in_use()

    @asynccontextmanager
    async def work(self, request: IdempotentRequest) -> AsyncIterator["PostgresAnsweredWork"]:
        async with self._postgres.of_tenant(request.tenant) as connection:
            work = PostgresAnsweredWork(request, connection, self._kept_s)
            await work.begin()
            yield work
            if not work.answered:
                raise Defect("a request's work ended without its answer", code="WORK_WITHOUT_ANSWER")
            await work.end()
        work.committed()

    async def purge_expired(self) -> int:
        purged = 0
        for _ in range(PURGES_MAX):
            async with self._postgres.acquire() as connection:
                done = await connection.execute(
                    "delete from idempotency_keys where ctid = any(array(select ctid from idempotency_keys"
                    " where expires_at < now() limit $1 for update skip locked))",
                    PURGED_ROWS,
                )
            count = int(done.rpartition(" ")[2])
            purged += count
            if count < PURGED_ROWS:
                break
        return purged


class PostgresClaim:
    """The `Claim` port: whoever `owner` is in the row holds it."""

    def __init__(self, postgres: Postgres, request: IdempotentRequest, owner: uuid.UUID) -> None:
        self._postgres = postgres
        self._request = request
        self._name = (request.tenant, request.subject, key_hash(request), owner)

    async def complete(self, answer: StoredAnswer) -> None:
        async with self._postgres.of_tenant(self._request.tenant) as connection:
            kept = await connection.fetchval(
                f"update idempotency_keys set status = $5, answer = $6 where {_ROW} and owner = $4"
                " and status is null returning true",
                *self._name,
                answer.status,
                seal(answer, self._request),
            )
        if not kept:
            # Whoever took over decides what is answered from now on.
            log.warning("idempotency.lease_lost", status=answer.status)

    async def release(self) -> None:
        async with self._postgres.of_tenant(self._request.tenant) as connection:
            await connection.execute(
                f"delete from idempotency_keys where {_ROW} and owner = $4 and status is null", *self._name
            )


class PostgresAnsweredWork(PostgresWork):
    """The `AnsweredWork` port."""

    def __init__(self, request: IdempotentRequest, connection: asyncpg.Connection, kept_s: int) -> None:
        super().__init__(request.tenant, connection)
        self._request = request
        self._name = (request.tenant, request.subject, key_hash(request))
        self._kept_s = kept_s
        self.answered = False

    async def begin(self) -> None:
        """Make sure that nobody did it, or is doing it. Raises as `Idempotency.work` does."""
        row = await self.connection.fetchrow(_LOOK, *self._name, _lock_of(self._name))
        if row["fingerprint"] is not None:
            if (answer := _answer_in(row, self._request)) is not None:
                raise AnsweredBefore(answer)
            if not (row["expired"] or row["lapsed"]):
                raise _in_use()
        if not row["ours"]:
            raise _in_use()

    async def answer(self, answer: StoredAnswer) -> None:
        kept = await self.connection.fetchval(
            _ANSWER,
            *self._name,
            self._request.fingerprint,
            uuid.uuid4(),
            float(self._kept_s),
            answer.status,
            seal(answer, self._request),
        )
        if not kept:
            # Somebody did it after we had looked and before we had the lock: with theirs there, nothing of ours stays.
            await self.begin()
            raise _in_use()
        self.answered = True


def _answer_in(row: asyncpg.Record, request: IdempotentRequest) -> StoredAnswer | None:
    """Return the answer that is kept, if there is one."""
    if row["expired"]:
        return None
    if row["fingerprint"] != request.fingerprint:
        raise Invalid("this Idempotency-Key was used for another request", code="IDEMPOTENCY_KEY_REUSED")
    return None if row["status"] is None else unseal(row["answer"], request)


def _in_use() -> Conflict:
    return Conflict(
        "the first request with this Idempotency-Key is still running", code="IDEMPOTENCY_KEY_IN_USE"
    )


def _lock_of(name: tuple[str, str, bytes]) -> int:
    tenant, subject, key = name
    digest = hashlib.sha256(
        b"\0".join((b"tickgate request", tenant.encode(), subject.encode(), key))
    ).digest()
    return int.from_bytes(digest[:8], signed=True)


@asynccontextmanager
async def open_idempotency(
    settings: Settings, services: Mapping[str, Any]
) -> AsyncIterator[PostgresIdempotency]:
    yield PostgresIdempotency(services["postgres"], settings.gateway.idempotency_kept_s)
