"""What is asked of the topology: questions about one service."""

from enum import StrEnum
from typing import Annotated, Final

import msgspec

from core.messages.message import Message
from core.model.records import RecordId

DEPTH_MAX: Final = 32
DEPTH_DEFAULT: Final = 8

Depth = Annotated[int, msgspec.Meta(ge=1, le=DEPTH_MAX)]


class TopologyDeed(StrEnum):
    """What can be asked about a service, by the name its job has."""

    DOWNSTREAM = "downstream"
    UPSTREAM = "upstream"
    PATH = "path"
    IMPACT = "impact"


class NeighbourQuestion(Message, frozen=True, kw_only=True):
    """What is reached from a service. depth: of flows, at most."""

    id: RecordId
    depth: Depth = DEPTH_DEFAULT


class PathQuestion(Message, frozen=True, kw_only=True):
    """The shortest way from the service `id` to the service `toward`."""

    id: RecordId
    toward: RecordId


class ImpactQuestion(Message, frozen=True, kw_only=True):
    """What an outage of the service does."""

    id: RecordId


QUESTIONS: Final[dict[TopologyDeed, type[Message]]] = {
    TopologyDeed.DOWNSTREAM: NeighbourQuestion,
    TopologyDeed.UPSTREAM: NeighbourQuestion,
    TopologyDeed.PATH: PathQuestion,
    TopologyDeed.IMPACT: ImpactQuestion,
}
assert set(QUESTIONS) == set(TopologyDeed), "everything that is asked has its question"
