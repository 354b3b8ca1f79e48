"""Topology: services and the flows between them as a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from core.ports.records import Records

if TYPE_CHECKING:
    from core.model.records import Flow, Service


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """A service at the end of the shortest chain of flows. depth: its length, 1 for a neighbour."""

    service: str
    depth: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Impact:
    """What an outage of a service brings down and what it only hurts.

    failing: reached through required flows alone; degraded: the others that are reached. Both by depth, then id.
    """

    failing: Sequence[Reached]
    degraded: Sequence[Reached]


class Topology(Records, Protocol):
    """The graph of one tenant. Flows point from who uses to what is used. Raises everywhere: Unavailable;
    NotFound (code RECORD_NOT_FOUND) where the service asked about is not there.
    """

    async def downstream(self, tenant: str, service: str, *, depth_max: int) -> Sequence[Reached]:
        """Return what can be reached along the flows, by depth, then id; itself never."""

    async def upstream(self, tenant: str, service: str, *, depth_max: int) -> Sequence[Reached]:
        """Return what can be reached against the flows."""

    async def shortest_path(self, tenant: str, origin: str, target: str) -> Sequence[str]:
        """Return the services from `origin` to `target`, both included; empty where no flow leads there.

        Of several shortest the one that comes first by its ids.
        """

    async def impact(self, tenant: str, service: str) -> Impact:
        """Return what an outage of `service` does to what uses it."""

    async def load(
        self, tenant: str, services: Mapping[str, Service], flows: Mapping[str, Flow], *, version: str
    ) -> None:
        """Keep many by id, each in place of the one that is there.

        Raises: NotFound (code SERVICE_NOT_FOUND): a flow names a service that is not there. Then nothing is kept.
        """

    async def ping(self) -> None:
        """Raises: Unavailable."""
