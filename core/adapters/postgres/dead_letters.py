"""Dead letters in the ledger: recorded once, shown to their tenant, replayed at most once at a time."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg

from core.adapters.postgres.pool import Postgres
from core.errors.categories import Category
from core.errors.exceptions import Conflict, NotFound
from core.messages.dead_letters import DeadLetter, DeadLetterState
from core.settings import Settings

_COLUMNS: Final = (
    "id, job_id, queue, function, tenant, job, attempts, category, code, public, fingerprint, traceparent,"
    " first_failed_at, last_failed_at, state, replay_job_id"
)


ID: Final = re.compile("[0-9a-f]{27}")


class PostgresDeadLetters:
    """The `DeadLetters` port on PostgreSQL."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def record(self, letters: Sequence[DeadLetter]) -> None:
        async with self._postgres.acquire() as connection:
            await connection.executemany(
                "insert into dead_letters (id, job_id, queue, function, tenant, job, attempts, category, code, public,"
                " fingerprint, traceparent, first_failed_at, last_failed_at)"
                " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) on conflict (id) do nothing",
                [_row(letter) for letter in letters],
            )

    async def page(self, tenant: str | None, before: str | None, count: int) -> Sequence[DeadLetter]:
        async with self._as(tenant) as connection:
            rows = await connection.fetch(
                f"select {_COLUMNS} from dead_letters where ($1::text is null or tenant = $1)"
                " and ($2::text is null or id < $2) order by id desc limit $3",
                tenant,
                before,
                count,
            )
        return [_letter(row) for row in rows]

    async def one(self, letter_id: str, tenant: str | None) -> DeadLetter:
        _require_id(letter_id)
        async with self._as(tenant) as connection:
            row = await connection.fetchrow(
                f"select {_COLUMNS} from dead_letters where id = $1 and ($2::text is null or tenant = $2)",
                letter_id,
                tenant,
            )
        return _letter(_found(row))

    async def replay(
        self, letter_id: str, tenant: str | None, put: Callable[[DeadLetter], Awaitable[str]]
    ) -> DeadLetter:
        _require_id(letter_id)
        async with self._as(tenant) as connection:
            # Held until the job is in its queue: a second replay waits here, and is then told.
            row = await connection.fetchrow(
                f"select {_COLUMNS} from dead_letters where id = $1 and ($2::text is null or tenant = $2) for update",
                letter_id,
                tenant,
            )
            letter = _letter(_found(row))
            if letter.state is DeadLetterState.REPLAYED:
                raise Conflict("this dead letter has been replayed already", code="DEAD_LETTER_REPLAYED")
            row = await connection.fetchrow(
                "update dead_letters set state = 'replayed', replay_job_id = $3"
                f" where id = $1 and ($2::text is null or tenant = $2) returning {_COLUMNS}",
                letter_id,
                tenant,
                await put(letter),
            )
        return _letter(_found(row))

    async def purge(self, kept_days: int) -> int:
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(
                "delete from dead_letters where last_failed_at < now() - make_interval(days => $1) returning id",
                kept_days,
            )
        return len(rows)

    @asynccontextmanager
    async def _as(self, tenant: str | None) -> AsyncIterator[asyncpg.Connection]:
        """Open a transaction, of a tenant or of the operator."""
        if tenant is not None:
            async with self._postgres.of_tenant(tenant) as connection:
                yield connection
        else:
            async with self._postgres.acquire() as connection, connection.transaction():
                yield connection


def _row(letter: DeadLetter) -> tuple[Any, ...]:
    return (
        letter.id,
        letter.job_id,
        letter.queue,
        letter.function,
        letter.tenant,
        letter.job,
        letter.attempts,
        letter.category,
        letter.code,
        letter.public,
        letter.fingerprint,
        letter.traceparent,
        _time(letter.first_failed_at_ms),
        _time(letter.last_failed_at_ms),
    )


def _letter(row: asyncpg.Record) -> DeadLetter:
    return DeadLetter(
        id=row["id"],
        job_id=row["job_id"],
        queue=row["queue"],
        function=row["function"],
        tenant=row["tenant"],
        job=row["job"],
        attempts=row["attempts"],
        category=Category(row["category"]),
        code=row["code"],
        public=row["public"],
        fingerprint=row["fingerprint"],
        traceparent=row["traceparent"],
        first_failed_at_ms=_epoch_ms(row["first_failed_at"]),
        last_failed_at_ms=_epoch_ms(row["last_failed_at"]),
        state=DeadLetterState(row["state"]),
        replay_job_id=row["replay_job_id"],
    )


def _require_id(text: str) -> None:
    if not ID.fullmatch(text):
        raise _unknown()


def _unknown() -> NotFound:
    return NotFound("there is no such dead letter", code="DEAD_LETTER_NOT_FOUND")


def _found(row: asyncpg.Record | None) -> asyncpg.Record:
    if row is None:
        raise _unknown()
    return row


def _time(epoch_ms: int) -> datetime:
    return datetime.fromtimestamp(epoch_ms / 1_000, UTC)


def _epoch_ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000)


@asynccontextmanager
async def open_dead_letters(
    _settings: Settings, services: Mapping[str, Any]
) -> AsyncIterator[PostgresDeadLetters]:
    yield PostgresDeadLetters(services["postgres"])
