"""Questions about services: what they reach, what reaches them, the way between two, and what an outage does."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.infrastructure.central_hub import Hub
from core.messages.jobs import Answer
from core.messages.topology import (
    ImpactQuestion,
    NeighbourQuestion,
    PathQuestion,
    TopologyDeed,
)
from core.ports.jobs import JobFunction
from core.ports.topology import Topology
from core.settings import Settings
from workers.answering import one, page, question


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
        return [question(f"services.{deed}", do) for deed, do in deeds.items()]

    async def downstream(self, asked: NeighbourQuestion, tenant: str) -> Answer:
        return page(await self.topology.downstream(tenant, asked.id, depth_max=asked.depth))

    async def upstream(self, asked: NeighbourQuestion, tenant: str) -> Answer:
        return page(await self.topology.upstream(tenant, asked.id, depth_max=asked.depth))

    async def path(self, asked: PathQuestion, tenant: str) -> Answer:
        path = await self.topology.shortest_path(tenant, asked.id, asked.toward)
        return one({"services": path}, len(path))

    async def impact(self, asked: ImpactQuestion, tenant: str) -> Answer:
        impact = await self.topology.impact(tenant, asked.id)
        rows = len(impact.failing) + len(impact.degraded)
        return one({"failing": impact.failing, "degraded": impact.degraded}, rows)


def functions(hub: Hub, _settings: Settings) -> Sequence[JobFunction]:
    """Return the functions over this hub's topology."""
    return TopologyJobs(topology=hub["topology"]).functions()
