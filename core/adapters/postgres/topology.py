"""The topology in PostgreSQL: two tables and recursive queries. Foreign keys see to it that every flow has its ends."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import asyncpg

from core.adapters.postgres.pool import Postgres
from core.adapters.postgres.record_tables import Table, described
from core.adapters.postgres.records import PostgresRecords
from core.errors.exceptions import Conflict, Defect, NotFound
from core.model.records import SHELVES, Body, Flow, Record, RecordKind, Service
from core.ports.topology import Impact, Reached
from core.settings import Settings

PATH_DEPTH_MAX: Final = 64
"""A longer way is none. Also how far an outage is followed."""
REACHED_MAX: Final = 10_000
"""The nearest of them are answered."""
DEPTH_FIRST: Final = 8
"""How far a walk looks at first, then twice as far each time: few graphs are deeper, and each step costs all flows."""

TABLES: Final = {
    kind: Table(**described(kind)) for kind, shelf in SHELVES.items() if shelf.keeper == "topology"
}
_SERVICES: Final = TABLES[RecordKind.SERVICES]
_FLOWS: Final = TABLES[RecordKind.FLOWS]


class PostgresTopology(PostgresRecords):
    """The `Topology` port on PostgreSQL."""

    def __init__(self, postgres: Postgres) -> None:
        super().__init__(postgres, TABLES)

    async def create(
        self, kind: RecordKind, tenant: str, record_id: str, body: Body, *, version: str
    ) -> Record[Any]:
        with _ends_needed():
            return await super().create(kind, tenant, record_id, body, version=version)

    async def update(
        self, kind: RecordKind, tenant: str, record_id: str, body: Body, *, expected: str | None, version: str
    ) -> Record[Any]:
        with _ends_needed():
            return await super().update(kind, tenant, record_id, body, expected=expected, version=version)

    async def delete(self, kind: RecordKind, tenant: str, record_id: str, *, expected: str | None) -> None:
        try:
            await super().delete(kind, tenant, record_id, expected=expected)
        except Defect as e:
            if not isinstance(e.__cause__, asyncpg.ForeignKeyViolationError):
                raise
            raise Conflict(f"flows lead to or from {record_id!r}", code="RECORD_IN_USE") from e

    async def load(
        self, tenant: str, services: Mapping[str, Service], flows: Mapping[str, Flow], *, version: str
    ) -> None:
        with _ends_needed():
            async with self._postgres.of_tenant(tenant) as connection:
                for table, bodies in ((_SERVICES, services), (_FLOWS, flows)):
                    rows = [(tenant, key, version, *table.values(bodies[key])) for key in sorted(bodies)]
                    await connection.executemany(table.load, rows)

    async def downstream(self, tenant: str, service: str, *, depth_max: int) -> Sequence[Reached]:
        async with self._postgres.of_tenant(tenant) as connection:
            await _require(connection, tenant, service)
            return await _reached(connection, _walk("origin", "target"), tenant, service, depth_max)

    async def upstream(self, tenant: str, service: str, *, depth_max: int) -> Sequence[Reached]:
        async with self._postgres.of_tenant(tenant) as connection:
            await _require(connection, tenant, service)
            return await _reached(connection, _walk("target", "origin"), tenant, service, depth_max)

    async def shortest_path(self, tenant: str, origin: str, target: str) -> Sequence[str]:
        async with self._postgres.of_tenant(tenant) as connection:
            await _require(connection, tenant, origin)
            await _require(connection, tenant, target)
            following = await _towards(connection, tenant, origin, target)
        path = [origin]
        while path[-1] != target:
            if path[-1] not in following:
                return []
            path.append(following[path[-1]])
        return path

    async def impact(self, tenant: str, service: str) -> Impact:
        async with self._postgres.of_tenant(tenant) as connection:
            await _require(connection, tenant, service)
            hurt = await _reached(connection, _walk("target", "origin"), tenant, service, PATH_DEPTH_MAX)
            required = _walk("target", "origin", "and flows.required")
            failing = await _reached(connection, required, tenant, service, PATH_DEPTH_MAX)
        down = {reached.service for reached in failing}
        return Impact(failing=failing, degraded=[reached for reached in hurt if reached.service not in down])

    async def ping(self) -> None:
        await self._postgres.ping()


def _walk(near: str, far: str, condition: str = "") -> str:
    """Return the query of what is reached from $2 within $3 steps; each is left once for each depth it is found at."""
    return (
        'with recursive found (id, depth) as (select $2::text collate "C", 0 union'
        f" select flows.{far}, found.depth + 1 from found join flows on flows.{near} = found.id"
        f" where flows.tenant = $1 and found.depth < $3 {condition})"
        " select id, min(depth) as depth from found where id <> $2 group by id order by depth, id"
        f" limit {REACHED_MAX}"
    )


_NEXT: Final = (
    # From everywhere the first of the neighbours that are one step nearer to $2.
    'with recursive found (id, depth) as (select $2::text collate "C", 0 union'
    " select flows.origin, found.depth + 1 from found join flows on flows.target = found.id"
    " where flows.tenant = $1 and found.depth < $3),"
    " distance as (select id, min(depth) as depth from found group by id)"
    " select flows.origin, min(flows.target) as next, min(here.depth) as depth from flows"
    " join distance here on here.id = flows.origin join distance there on there.id = flows.target"
    " where flows.tenant = $1 and here.depth = there.depth + 1 group by flows.origin"
)


async def _reached(
    connection: asyncpg.Connection, query: str, tenant: str, service: str, depth_max: int
) -> Sequence[Reached]:
    for depth in _depths(depth_max):
        rows = await connection.fetch(query, tenant, service, depth)
        if len(rows) == REACHED_MAX or not rows or rows[-1]["depth"] < depth:
            break
    return [Reached(service=row["id"], depth=row["depth"]) for row in rows]


async def _towards(
    connection: asyncpg.Connection, tenant: str, origin: str, target: str
) -> Mapping[str, str]:
    """Return whom to go to next, from everywhere that is no farther from `target` than `origin` is."""
    for depth in _depths(PATH_DEPTH_MAX):
        rows = await connection.fetch(_NEXT, tenant, target, depth)
        following = {row["origin"]: row["next"] for row in rows}
        if origin in following or all(row["depth"] < depth for row in rows):
            break
    return following


def _depths(depth_max: int) -> Iterator[int]:
    depth = DEPTH_FIRST
    while depth < depth_max:
        yield depth
        depth *= 2
    yield depth_max


async def _require(connection: asyncpg.Connection, tenant: str, service: str) -> None:
    if await connection.fetchrow(_SERVICES.select, tenant, service) is None:
        raise NotFound(f"there is no {service!r}", code="RECORD_NOT_FOUND")


@contextmanager
def _ends_needed() -> Iterator[None]:
    try:
        yield
    except Defect as e:
        if not isinstance(e.__cause__, asyncpg.ForeignKeyViolationError):
            raise
        raise NotFound("a flow leads from and to services that are there", code="SERVICE_NOT_FOUND") from e


@asynccontextmanager
async def open_topology(_settings: Settings, services: Mapping[str, Any]) -> AsyncIterator[PostgresTopology]:
    yield PostgresTopology(services["postgres"])
