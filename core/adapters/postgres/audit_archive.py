"""The whole audit trail in the ledger, for who seals and verifies it."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

from core.adapters.postgres.audit import ENTRY
from core.adapters.postgres.pool import Postgres
from core.model.audit import AuditEntry, KeptCheckpoint
from core.settings import Settings

HASH_BYTES: Final = 32
_COLUMNS: Final = "stream, size, checkpoint, head, roots"


class PostgresAuditArchive:
    """The `AuditArchive` port on PostgreSQL."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def streams(self) -> Sequence[tuple[str, int]]:
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch("select tenant, seq from audit_heads order by tenant")
        return [(row["tenant"], row["seq"]) for row in rows]

    async def entries(self, stream: str, *, after: int, limit: int) -> Sequence[AuditEntry]:
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(
                f"select {ENTRY} from audit_events where tenant = $1 and seq > $2 order by seq limit $3",
                stream,
                after,
                limit,
            )
        return [AuditEntry(**row) for row in rows]

    async def newest_checkpoint(self, stream: str) -> KeptCheckpoint | None:
        async with self._postgres.acquire() as connection:
            row = await connection.fetchrow(
                f"select {_COLUMNS} from audit_checkpoints where stream = $1 order by size desc limit 1",
                stream,
            )
        return None if row is None else _kept(row)

    async def keep_checkpoint(self, kept: KeptCheckpoint) -> bool:
        async with self._postgres.acquire() as connection, connection.transaction():
            # Two workers that seal at once would make a fork of what only grows.
            await connection.execute(
                "select pg_advisory_xact_lock(hashtextextended('tickgate.seal/' || $1, 0))", kept.stream
            )
            done = await connection.execute(
                f"insert into audit_checkpoints ({_COLUMNS}) select $1, $2, $3, $4, $5"
                " where not exists (select from audit_checkpoints where stream = $1 and size > $6)",
                kept.stream,
                kept.size,
                kept.text.decode(),
                kept.head,
                b"".join(kept.roots),
                kept.after,
            )
        return bool(done == "INSERT 0 1")

    async def unanchored(self) -> Sequence[KeptCheckpoint]:
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(
                f"select {_COLUMNS} from audit_checkpoints where anchored_at is null order by stream, size"
            )
        return [_kept(row) for row in rows]

    async def anchored(self, kept: KeptCheckpoint) -> None:
        async with self._postgres.acquire() as connection:
            await connection.execute(
                "update audit_checkpoints set anchored_at = now() where stream = $1 and size = $2",
                kept.stream,
                kept.size,
            )


def _kept(row: asyncpg.Record) -> KeptCheckpoint:
    roots = row["roots"]
    return KeptCheckpoint(
        stream=row["stream"],
        size=row["size"],
        text=row["checkpoint"].encode(),
        head=row["head"],
        roots=tuple(roots[at : at + HASH_BYTES] for at in range(0, len(roots), HASH_BYTES)),
    )


@asynccontextmanager
async def open_audit_archive(
    _settings: Settings, services: Mapping[str, Any]
) -> AsyncIterator[PostgresAuditArchive]:
    yield PostgresAuditArchive(services["postgres"])
