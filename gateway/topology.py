"""Questions about services: what they reach, what reaches them, the way between two, and what an outage does."""

from typing import Annotated, Final

import msgspec
from starlette.responses import Response

from core.messages.message import Message
from core.messages.topology import (
    DEPTH_DEFAULT,
    Depth,
    ImpactQuestion,
    NeighbourQuestion,
    PathQuestion,
    TopologyDeed,
)
from core.model.records import RecordId
from gateway import answers
from gateway.asking import answered
from gateway.parameters import NoParameters, parse
from gateway.records import id_of
from gateway.routing import Call

FUNCTION: Final = "services.{deed}"


class DepthQuery(Message, frozen=True, kw_only=True):
    """How far to look."""

    depth: Depth = DEPTH_DEFAULT


class PathQuery(Message, frozen=True, kw_only=True):
    """Where to."""

    toward: RecordId


class ReachedService(msgspec.Struct, kw_only=True):
    """A service and how many flows away it is."""

    service: RecordId
    depth: Annotated[int, msgspec.Meta(description="Of the shortest way; 1 for a neighbour.", ge=1)]


class ReachedServices(msgspec.Struct, kw_only=True):
    """The services that are reached, the nearest first; there is no further page."""

    items: list[ReachedService]
    next_cursor: answers.NextCursor


class ServicePath(msgspec.Struct, kw_only=True):
    """The services on the shortest way, both ends included; empty where no flow leads there."""

    services: list[RecordId]


class ServiceImpact(msgspec.Struct, kw_only=True):
    """What an outage brings down, and what it only hurts."""

    failing: Annotated[
        list[ReachedService], msgspec.Meta(description="Reached through required flows alone.")
    ]
    degraded: Annotated[list[ReachedService], msgspec.Meta(description="The others that it reaches.")]


async def downstream(call: Call) -> Response:
    """List what a service reaches along the flows."""
    depth = parse(call.request, DepthQuery).depth
    return await _ask(call, TopologyDeed.DOWNSTREAM, NeighbourQuestion(id=id_of(call), depth=depth))


async def upstream(call: Call) -> Response:
    """List what reaches a service along the flows."""
    depth = parse(call.request, DepthQuery).depth
    return await _ask(call, TopologyDeed.UPSTREAM, NeighbourQuestion(id=id_of(call), depth=depth))


async def path(call: Call) -> Response:
    """Show the shortest way from a service to another.

    Of several the one that comes first by its ids.
    """
    toward = parse(call.request, PathQuery).toward
    return await _ask(call, TopologyDeed.PATH, PathQuestion(id=id_of(call), toward=toward))


async def impact(call: Call) -> Response:
    """Tell what an outage of a service does to what uses it.

    What is reached against the flows through required ones alone fails; whatever else is reached is only degraded.
    """
    parse(call.request, NoParameters)
    return await _ask(call, TopologyDeed.IMPACT, ImpactQuestion(id=id_of(call)))


async def _ask(call: Call, deed: TopologyDeed, question: Message) -> Response:
    return await answered(call, FUNCTION.format(deed=deed), question)
