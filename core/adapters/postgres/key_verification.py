"""Verify API keys from memory, and from the ledger when there is doubt.

What was verified is remembered for CACHED_S_MAX at most, and not beyond a revocation: the ledger's trigger tells every
process of a revoked key or a secret taken away, and the next request asks the ledger again. The ledger's row decides.
"""

import asyncio
import hmac
import time
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import asyncpg

from core.adapters.postgres.pool import Postgres
from core.adapters.postgres.revocations import CLOCK_SKEW_S_MAX
from core.errors.exceptions import Unauthorized, Unavailable
from core.model.keys import hash_of, prefix_of
from core.model.principals import Principal, PrincipalKind
from core.ports.access import Revocations
from core.telemetry import metrics

CACHED_S_MAX: Final = 60.0
CACHED_KEYS_MAX: Final = 10_000
LOOK_UPS_AT_ONCE: Final = 3
"""Fewer than the pool has connections: who tries made-up keys must not take them all."""
LOOK_UPS_MAX: Final = 300

_LOOK_UP: Final = (
    "select k.id::text, k.tenant, k.owner_kind, k.subject, k.scopes, k.prefix, k.secret_hash, k.old_secret_hash,"
    " extract(epoch from k.expires_at)::float8 as expires_at_s,"
    " extract(epoch from k.old_expires_at)::float8 as old_expires_at_s,"
    " extract(epoch from now())::float8 as now_s, c.scopes as client_scopes"
    " from api_keys k left join api_clients c"
    " on c.client_id = k.subject and c.tenant = k.tenant and c.disabled_at is null"
    " where (k.prefix = $1 or k.old_prefix = $1 and k.old_expires_at > now())"
    " and k.revoked_at is null and k.expires_at > now()"
    # Whoever ends everything of a client does not see the key that is just being made.
    " and not exists (select from revocations r where k.owner_kind = 'client' and r.credential = 'client:' || k.subject"
    f" and k.created_at <= r.revoked_at + interval '{CLOCK_SKEW_S_MAX} seconds')"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedKey:
    """What is remembered of a key. credentials: the names it may be revoked under; known_at_s: the ledger's clock."""

    key_id: str
    principal: Principal
    credentials: tuple[str, ...]
    known_at_s: float
    until_s: float


class KeyVerifier:
    """Remembers keys that were good."""

    def __init__(self, postgres: Postgres, revocations: Revocations) -> None:
        self._postgres = postgres
        self._revocations = revocations
        self._verified: OrderedDict[bytes, VerifiedKey] = OrderedDict()
        self._look_ups = asyncio.Semaphore(LOOK_UPS_AT_ONCE)
        self._looking = 0

    async def verify(self, text: str) -> VerifiedKey:
        """Return what the key's text stands for. Raises: Unauthorized, Unavailable."""
        prefix = prefix_of(text)
        if prefix is None:
            raise _not_valid("malformed")
        digest = hash_of(text)
        found = self._verified.get(digest)
        if (
            found is None
            or found.until_s <= time.time()
            or self._revocations.is_revoked(*found.credentials, issued_at_s=found.known_at_s)
        ):
            self._verified.pop(digest, None)
            found = self._verified[digest] = await self._look_up(prefix, digest)
            if len(self._verified) > CACHED_KEYS_MAX:
                self._verified.popitem(last=False)
        return found

    def forget(self, key_ids: Collection[str]) -> None:
        """Do not wait to be told what this process did itself."""
        for digest in [digest for digest, found in self._verified.items() if found.key_id in key_ids]:
            del self._verified[digest]

    async def _look_up(self, prefix: str, digest: bytes) -> VerifiedKey:
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


def _verified(row: asyncpg.Record | None, prefix: str, digest: bytes) -> VerifiedKey:
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
    return VerifiedKey(
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


def _not_valid(detail: str) -> Unauthorized:
    return Unauthorized("the API key is not valid", code="INVALID_KEY", detail=detail)
