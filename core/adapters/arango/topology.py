"""The topology in ArangoDB: a named graph, walked by its own traversals."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from arango.database import Database

from core.adapters.arango.client import Arango
from core.adapters.arango.documents import FLOWS, GRAPH, SERVICES, vertex_of
from core.adapters.arango.records import TRIES, ArangoRecords, one, rows
from core.errors.exceptions import NotFound, Unavailable
from core.ports.topology import Impact, Reached
from core.settings import Settings

PATH_DEPTH_MAX: Final = 64
"""A longer way is none. Also how far an outage is followed."""
REACHED_MAX: Final = 10_000
"""The nearest of them are answered."""

_WALK: Final = (
    f'FOR v, e, p IN 1..@depth {{direction}} @start GRAPH "{GRAPH}"'
    ' OPTIONS {{order: "bfs", uniqueVertices: "global"}}'
    f" FILTER v.tenant == @tenant LIMIT {REACHED_MAX} RETURN {{{{service: v.id, depth: LENGTH(p.edges)}}}}"
)
_THERE: Final = f"FOR s IN {SERVICES} FILTER s._id == @service AND s.tenant == @tenant RETURN s._id"
_BETWEEN: Final = (
    f"FOR f IN {FLOWS} FILTER f.tenant == @tenant AND f.origin IN @near AND f.target IN @near"
    " RETURN {origin: f.origin, target: f.target}"
)
_NEEDING: Final = (
    f"FOR f IN {FLOWS} FILTER f.tenant == @tenant AND f.required == true AND f.target IN @failed"
    " RETURN DISTINCT f.origin"
)


class ArangoTopology(ArangoRecords):
    """The `Topology` port on ArangoDB."""

    def __init__(self, arango: Arango) -> None:
        super().__init__(arango)

    async def downstream(self, tenant: str, service: str, *, depth_max: int) -> Sequence[Reached]:
        return await self._arango.ask(
            lambda database: _reached(database, "OUTBOUND", tenant, service, depth_max)
        )

    async def upstream(self, tenant: str, service: str, *, depth_max: int) -> Sequence[Reached]:
        return await self._arango.ask(
            lambda database: _reached(database, "INBOUND", tenant, service, depth_max)
        )

    async def shortest_path(self, tenant: str, origin: str, target: str) -> Sequence[str]:
        return await self._arango.ask(lambda database: _path(database, tenant, origin, target))

    async def impact(self, tenant: str, service: str) -> Impact:
        return await self._arango.ask(lambda database: _impact(database, tenant, service))

    async def ping(self) -> None:
        await self._arango.ping()


def _reached(database: Database, direction: str, tenant: str, service: str, depth_max: int) -> list[Reached]:
    _require(database, tenant, service)
    start = vertex_of(tenant, service)
    walk = _WALK.format(direction=direction)
    found = rows(database, walk, {"start": start, "depth": depth_max, "tenant": tenant})
    reached = [
        Reached(service=row["service"], depth=row["depth"]) for row in found if row["service"] != service
    ]
    return sorted(reached, key=_nearest_first)


def _path(database: Database, tenant: str, origin: str, target: str) -> list[str]:
    """Return the first shortest way by its ids, looked for again where a flow vanishes while it is looked for."""
    _require(database, tenant, origin)
    for _ in range(TRIES):
        if (path := _path_now(database, tenant, origin, target)) is not None:
            return path
    raise Unavailable("the topology changes while it is read", code="TOPOLOGY_UNAVAILABLE")


def _path_now(database: Database, tenant: str, origin: str, target: str) -> list[str] | None:
    """Go from `origin` to the first, by its id, of the neighbours that are one step nearer to `target`.

    None: the flows are no longer those the distances were taken from.
    """
    towards = _reached(database, "INBOUND", tenant, target, PATH_DEPTH_MAX)
    distance = {reached.service: reached.depth for reached in towards} | {target: 0}
    if origin not in distance:
        return []
    near = [service for service, depth in distance.items() if depth < distance[origin]]
    flows = rows(database, _BETWEEN, {"tenant": tenant, "near": [*near, origin]})
    path = [origin]
    while path[-1] != target:
        nearer = distance[path[-1]] - 1
        following = (flow["target"] for flow in flows if flow["origin"] == path[-1])
        nearest = [service for service in following if distance[service] == nearer]
        if not nearest:
            return None
        path.append(min(nearest))
    return path


def _impact(database: Database, tenant: str, service: str) -> Impact:
    hurt = _reached(database, "INBOUND", tenant, service, PATH_DEPTH_MAX)
    # Not one traversal: coming to a service by a flow that does not count, it would not come to it by one that does.
    failing: dict[str, int] = {service: 0}
    frontier = [service]
    for depth in range(1, PATH_DEPTH_MAX + 1):
        needing = rows(database, _NEEDING, {"tenant": tenant, "failed": frontier})
        frontier = [one for one in needing if one not in failing]
        failing |= dict.fromkeys(frontier, depth)
        if not frontier:
            break
    del failing[service]
    down = [Reached(service=name, depth=depth) for name, depth in failing.items()]
    return Impact(
        failing=sorted(down, key=_nearest_first),
        degraded=[reached for reached in hurt if reached.service not in failing],
    )


def _require(database: Database, tenant: str, service: str) -> None:
    if one(database, _THERE, {"service": vertex_of(tenant, service), "tenant": tenant}) is None:
        raise NotFound(f"there is no {service!r}", code="RECORD_NOT_FOUND")


def _nearest_first(reached: Reached) -> tuple[int, str]:
    return reached.depth, reached.service


@asynccontextmanager
async def open_topology(_settings: Settings, services: Mapping[str, Any]) -> AsyncIterator[ArangoTopology]:
    yield ArangoTopology(services["arango"])
