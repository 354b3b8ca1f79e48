"""Questions about services: what they reach, what reaches them, the way between two, and what an outage does."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from core.infrastructure.central_hub import Hub
from core.messages.jobs import Answer
from core.messages.topology import (
    QUESTIONS,
    ImpactQuestion,
    NeighbourQuestion,
    PathQuestion,
    TopologyDeed,
)
from core.ports.jobs import JobFunction
from core.ports.topology import Topology
from core.settings import Settings
from core.telemetry import tracing
from workers.records import JSON_TYPE, converted


@dataclass(frozen=True, slots=True, kw_only=True)
class TopologyJobs:
    """Answers what a job asks of the graph."""

    topology: Topology

    def functions(self) -> Sequence[JobFunction]:
        """Return the questions, each with its name in the job table."""
        deeds: Mapping[TopologyDeed, Callable[[Any, str], Awaitable[Answer]]] = {
            TopologyDeed.DOWNSTREAM: self.downstream,
            TopologyDeed.UPSTREAM: self.upstream,
            TopologyDeed.PATH: self.path,
            TopologyDeed.IMPACT: self.impact,
        }
        return [JobFunction(name=f"services.{deed}", run=_job(deed, do)) for deed, do in deeds.items()]

    async def downstream(self, asked: NeighbourQuestion, tenant: str) -> Answer:
        return _listed(await self.topology.downstream(tenant, asked.id, depth_max=asked.depth))

    async def upstream(self, asked: NeighbourQuestion, tenant: str) -> Answer:
        return _listed(await self.topology.upstream(tenant, asked.id, depth_max=asked.depth))

    async def path(self, asked: PathQuestion, tenant: str) -> Answer:
        path = await self.topology.shortest_path(tenant, asked.id, asked.toward)
        return _answer({"services": path}, len(path))

    async def impact(self, asked: ImpactQuestion, tenant: str) -> Answer:
        impact = await self.topology.impact(tenant, asked.id)
        rows = len(impact.failing) + len(impact.degraded)
        return _answer({"failing": impact.failing, "degraded": impact.degraded}, rows)


def functions(hub: Hub, _settings: Settings) -> Sequence[JobFunction]:
    """Return the functions over this hub's topology."""
    return TopologyJobs(topology=hub["topology"]).functions()


def _job(deed: TopologyDeed, do: Callable[[Any, str], Awaitable[Answer]]) -> Callable[..., Awaitable[Answer]]:
    async def run(_ctx: Mapping[str, Any], request: Any, *, tenant: str, traceparent: str = "") -> Answer:
        tracing.start(traceparent)
        return await do(converted(request, QUESTIONS[deed]), tenant)

    return run


def _listed(found: Sequence[Any]) -> Answer:
    return _answer({"items": found, "next_cursor": None}, len(found))


def _answer(body: Mapping[str, Any], rows: int) -> Answer:
    return Answer(content_type=JSON_TYPE, body=msgspec.json.encode(body), rows=rows)
