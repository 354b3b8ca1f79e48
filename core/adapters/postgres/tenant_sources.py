"""Sources in the ledger as their tenants keep them: made, listed, rotated and closed, each within its tenant."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

from core.adapters.postgres.pool import Postgres
from core.adapters.postgres.work import PostgresWork
from core.errors.exceptions import Conflict, NotFound, Unavailable
from core.model.sources import EVER_MAX, OPEN_MAX, SourceNotice, SourceState, SourceToken, new_name
from core.settings import Settings

NAMES_TRIED_MAX: Final = 3

_MS: Final = "(extract(epoch from {}) * 1000)::bigint as {}_ms"
_COLUMNS: Final = ", ".join(
    (
        "s.name, s.title, s.version, e.epoch, e.install, e.tallied_seq as last_seq",
        # Released is -infinity, which is before now as well.
        "coalesce(l.expires_at > now(), false) as connected",
        *(_MS.format(f"s.{name}", name) for name in ("created_at", "updated_at", "rotated_at", "closed_at")),
        _MS.format("l.seen_at", "last_seen_at"),
        _MS.format("e.started_at", "epoch_started_at"),
        "n.code as notice_code, n.symbol as notice_symbol, n.detail as notice_detail, n.at_ms as notice_at_ms",
    )
)
_STATES: Final = (
    f"select {_COLUMNS} from sources s"
    " left join source_leases l on l.source = s.name"
    " left join lateral (select epoch, install, tallied_seq, started_at from source_epochs"
    " where source = s.name order by epoch desc limit 1) e on true"
    " left join lateral (select code, symbol, detail, at_ms from source_notices"
    " where source = s.name order by at_ms desc limit 1) n on true"
    " where s.tenant = $1"
)


class PostgresTenantSources:
    """The `TenantSources` port on PostgreSQL."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def page(self, tenant: str, *, after: str | None, limit: int) -> Sequence[SourceState]:
        async with self._postgres.of_tenant(tenant) as connection:
            rows = await connection.fetch(
                f'{_STATES} and ($2::text is null or s.name collate "C" > $2)'
                ' order by s.name collate "C" limit $3',
                tenant,
                after,
                limit,
            )
        return [_state(row) for row in rows]

    async def read(self, tenant: str, name: str) -> SourceState:
        async with self._postgres.of_tenant(tenant) as connection:
            return await _read(connection, tenant, name)

    async def create(self, work: PostgresWork, label: str, title: str, token: SourceToken) -> SourceState:
        # Two at once must not both be the last one.
        await work.connection.execute(
            "select pg_advisory_xact_lock(hashtextextended('sources of ' || $1, 0))", work.tenant
        )
        await _require_room(work)
        for _ in range(NAMES_TRIED_MAX):
            name = await work.connection.fetchval(
                "insert into sources (name, tenant, token_hash, title) values ($1, $2, $3, $4)"
                " on conflict do nothing returning name",
                new_name(label),
                work.tenant,
                token.sha256,
                title,
            )
            if name is not None:
                return await _read(work.connection, work.tenant, name)
        raise Unavailable("no name could be found", code="LEDGER_UNAVAILABLE")

    async def rotate(self, work: PostgresWork, name: str, token: SourceToken) -> SourceState:
        changed = await work.connection.fetchval(
            "update sources set token_hash = $3, version = gen_random_uuid()::text, updated_at = now()"
            " where tenant = $1 and name = $2 and closed_at is null returning true",
            work.tenant,
            name,
            token.sha256,
        )
        state = await _read(work.connection, work.tenant, name)
        if not changed:
            raise _closed(name)
        return state

    async def update(self, tenant: str, name: str, title: str, *, expected: str | None) -> SourceState:
        async with self._postgres.of_tenant(tenant) as connection:
            changed = await connection.fetchval(
                "update sources set title = $3, version = gen_random_uuid()::text, updated_at = now()"
                " where tenant = $1 and name = $2 and closed_at is null and ($4::text is null or version = $4)"
                " returning true",
                tenant,
                name,
                title,
                expected,
            )
            state = await _read(connection, tenant, name)
        if not changed and state.closed_at_ms is not None:
            raise _closed(name)
        if not changed:
            raise Conflict(f"{name!r} has been written since", code="VERSION_MISMATCH")
        return state

    async def close(self, tenant: str, name: str) -> None:
        async with self._postgres.of_tenant(tenant) as connection:
            await connection.execute(
                "update sources set closed_at = now(), version = gen_random_uuid()::text, updated_at = now()"
                " where tenant = $1 and name = $2 and closed_at is null",
                tenant,
                name,
            )
            await _read(connection, tenant, name)


async def _require_room(work: PostgresWork) -> None:
    row = await work.connection.fetchrow(
        "select count(*) as ever, count(*) filter (where closed_at is null) as open from sources"
        " where tenant = $1",
        work.tenant,
    )
    if row["open"] >= OPEN_MAX:
        raise Conflict(f"a tenant may have {OPEN_MAX} sources; close some first", code="TOO_MANY_SOURCES")
    if row["ever"] >= EVER_MAX:
        raise Conflict(f"a tenant may have {EVER_MAX} sources, closed ones included", code="TOO_MANY_SOURCES")


async def _read(connection: asyncpg.Connection, tenant: str, name: str) -> SourceState:
    row = await connection.fetchrow(f"{_STATES} and s.name = $2", tenant, name)
    if row is None:
        raise NotFound("there is no such source", code="SOURCE_NOT_FOUND")
    return _state(row)


def _state(row: asyncpg.Record) -> SourceState:
    fields: dict[str, Any] = dict(row)
    notice = {name: fields.pop(f"notice_{name}") for name in ("code", "symbol", "detail", "at_ms")}
    said = None if notice["code"] is None else SourceNotice(**notice)
    return SourceState(**fields, last_notice=said)


def _closed(name: str) -> Conflict:
    return Conflict(f"{name!r} is closed", code="SOURCE_CLOSED")


@asynccontextmanager
async def open_tenant_sources(
    _settings: Settings, services: Mapping[str, Any]
) -> AsyncIterator[PostgresTenantSources]:
    yield PostgresTenantSources(services["postgres"])
