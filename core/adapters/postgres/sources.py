"""Sources in the ledger: tokens, epochs, leases, tallies and notices."""

import hashlib
import hmac
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from core.adapters.postgres.pool import Postgres
from core.errors.exceptions import Conflict, NotFound, Unauthorized
from core.messages.wire import Notice
from core.model.ticks import Tally
from core.ports.ticks import Dropped, ExpiredMonth, Lease, Renewal, Source
from core.settings import Settings


class PostgresSources:
    """The ports `SourceRegistry` and `SourceSecrets`. Lease times are PostgreSQL's clock, so holders need not agree."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def authenticate(self, source: str, token: str) -> Source:
        async with self._postgres.acquire() as connection:
            row = await connection.fetchrow(
                "select tenant, token_hash, rotation from sources where name = $1 and closed_at is null",
                source,
            )
        given = hashlib.sha256(token.encode()).hexdigest()
        if row is None or not hmac.compare_digest(given, row["token_hash"]):
            raise Unauthorized("unknown source or wrong token")
        return Source(name=source, tenant=row["tenant"], rotation=row["rotation"])

    async def token_hash(self, source: str) -> str:
        async with self._postgres.acquire() as connection:
            kept = await connection.fetchval(
                "select token_hash from sources where name = $1 and closed_at is null", source
            )
        if kept is None:
            raise NotFound(f"there is no source {source!r}", code="SOURCE_NOT_FOUND")
        return str(kept)

    async def has_forgotten(self, source: str, install: str) -> bool:
        async with self._postgres.acquire() as connection:
            return bool(
                await connection.fetchval(
                    "select exists (select from restores)"
                    " and not exists (select from source_epochs where source = $1 and install = $2)",
                    source,
                    install,
                )
            )

    async def epoch_of(self, source: str, install: str) -> int:
        async with self._postgres.acquire() as connection, connection.transaction():
            # The source's row serialises two installs that appear at once.
            await connection.execute("select from sources where name = $1 for update", source)
            known = await connection.fetchval(
                "select epoch from source_epochs where source = $1 and install = $2", source, install
            )
            if known is not None:
                return int(known)
            return int(
                await connection.fetchval(
                    "insert into source_epochs (source, epoch, install)"
                    " select $1, coalesce(max(epoch), 0) + 1, $2 from source_epochs where source = $1"
                    " returning epoch",
                    source,
                    install,
                )
            )

    async def sources_of(self, tenant: str) -> Sequence[str]:
        async with self._postgres.of_tenant(tenant) as connection:
            rows = await connection.fetch("select name from sources where tenant = $1 order by name", tenant)
        return [row["name"] for row in rows]

    async def take_lease(self, source: Source, holder: str, ttl_s: float) -> Lease:
        async with self._postgres.acquire() as connection:
            generation = await connection.fetchval(
                "insert into source_leases as held (source, holder, generation, expires_at, rotation, seen_at)"
                " select name, $2, 1, now() + make_interval(secs => $3), rotation, now() from sources"
                " where name = $1 and rotation = $4 and closed_at is null"
                " on conflict (source) do update set holder = $2, generation = held.generation + 1,"
                " expires_at = excluded.expires_at, rotation = excluded.rotation, seen_at = excluded.seen_at"
                " where held.holder = $2 or held.expires_at < now()"
                " returning generation",
                source.name,
                holder,
                ttl_s,
                source.rotation,
            )
            if generation is None and await _ended(connection, {source.name: source.rotation}):
                raise Unauthorized(f"the token shown for {source.name} is good no more")
        if generation is None:
            raise Conflict(f"another bridge holds the lease of {source.name}", code="LEASE_HELD")
        return Lease(
            source=source.name,
            holder=holder,
            generation=generation,
            expires_in_s=ttl_s,
            rotation=source.rotation,
        )

    async def renew_leases(self, leases: Sequence[Lease], ttl_s: float) -> Renewal:
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(
                "update source_leases as held"
                " set expires_at = now() + make_interval(secs => $4), seen_at = now()"
                " from unnest($1::text[], $2::text[], $3::bigint[]) as ours (source, holder, generation), sources"
                " where held.source = ours.source and held.holder = ours.holder"
                " and held.generation = ours.generation and held.expires_at >= now()"
                " and sources.name = held.source and sources.rotation = held.rotation"
                " and sources.closed_at is null"
                " returning held.source",
                [lease.source for lease in leases],
                [lease.holder for lease in leases],
                [lease.generation for lease in leases],
                ttl_s,
            )
            renewed = frozenset(row["source"] for row in rows)
            shown = {lease.source: lease.rotation for lease in leases if lease.source not in renewed}
            ended = await _ended(connection, shown) if shown else frozenset()
        return Renewal(renewed=renewed, ended=ended)

    async def release_lease(self, lease: Lease) -> None:
        async with self._postgres.acquire() as connection:
            await connection.execute(
                "update source_leases set expires_at = '-infinity', seen_at = now()"
                " where source = $1 and holder = $2 and generation = $3",
                lease.source,
                lease.holder,
                lease.generation,
            )

    async def record_tallies(self, source: str, epoch: int, tallies: Sequence[Tally]) -> None:
        async with self._postgres.acquire() as connection, connection.transaction():
            await connection.executemany(
                "insert into source_tallies as kept"
                " (source, epoch, symbol, day, rows, first_seq, last_seq, checksum)"
                " values ($1, $2, $3, $4, $5, $6, $7, $8)"
                " on conflict (source, epoch, symbol, day) do update set rows = excluded.rows,"
                " last_seq = excluded.last_seq, checksum = excluded.checksum"
                " where kept.last_seq < excluded.last_seq",
                [
                    (source, epoch, t.symbol, t.day, t.rows, t.first_seq, t.last_seq, t.checksum)
                    for t in tallies
                ],
            )
            await connection.execute(
                "update source_epochs set tallied_seq = $3 where source = $1 and epoch = $2 and tallied_seq < $3",
                source,
                epoch,
                max((tally.last_seq for tally in tallies), default=0),
            )

    async def recorded_tallies(self, source: str, epoch: int, day: int | None) -> Sequence[Tally]:
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(
                "select symbol, day, rows, first_seq, last_seq, checksum from source_tallies"
                " where source = $1 and epoch = $2 and ($3::integer is null or day = $3)"
                " order by day, symbol",
                source,
                epoch,
                day,
            )
        return [
            Tally(
                symbol=row["symbol"],
                day=row["day"],
                rows=row["rows"],
                first_seq=row["first_seq"],
                last_seq=row["last_seq"],
                checksum=int(row["checksum"]),
            )
            for row in rows
        ]

    async def record_notice(self, source: str, epoch: int, notice: Notice) -> None:
        async with self._postgres.acquire() as connection:
            await connection.execute(
                "insert into source_notices (source, epoch, code, symbol, detail, at_ms)"
                " values ($1, $2, $3, $4, $5, $6)",
                source,
                epoch,
                notice.code.value,
                notice.symbol,
                notice.detail[:1_000],
                notice.at_ms,
            )

    async def epochs(self, source: str) -> Mapping[int, Dropped]:
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(
                "select epoch, coalesce(sum(rows), 0)::bigint as rows, coalesce(max(last_seq), 0) as last_seq,"
                " array_remove(array_agg(month), null) as months"
                " from source_epochs left join source_drops using (source, epoch)"
                " where source = $1 group by epoch order by epoch",
                source,
            )
        return {
            row["epoch"]: Dropped(rows=row["rows"], last_seq=row["last_seq"], months=frozenset(row["months"]))
            for row in rows
        }

    async def note_drop(self, month: ExpiredMonth) -> None:
        # Late rows of a month that went before have higher seqs: they add up. The same rows noted twice do not.
        async with self._postgres.acquire() as connection:
            await connection.executemany(
                "insert into source_drops as kept (source, epoch, month, rows, last_seq)"
                " values ($1, $2, $3, $4, $5)"
                " on conflict (source, epoch, month) do update"
                " set rows = kept.rows + excluded.rows, last_seq = excluded.last_seq"
                " where excluded.last_seq > kept.last_seq",
                [
                    (source, epoch, month.name, rows, last_seq)
                    for (source, epoch), (rows, last_seq) in month.contents.items()
                ],
            )


async def _ended(connection: asyncpg.Connection, shown: Mapping[str, int]) -> frozenset[str]:
    """Return those sources that are closed, or have another token than that of the rotation shown."""
    rows = await connection.fetch(
        "select shown.name from unnest($1::text[], $2::integer[]) as shown (name, rotation) join sources using (name)"
        " where sources.closed_at is not null or sources.rotation <> shown.rotation",
        list(shown),
        list(shown.values()),
    )
    return frozenset(row["name"] for row in rows)


@asynccontextmanager
async def open_sources(_settings: Settings, services: Mapping[str, Any]) -> AsyncIterator[PostgresSources]:
    yield PostgresSources(services["postgres"])
