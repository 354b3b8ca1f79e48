"""Similarity: records with a vector of ours, found by nearness, by words, or by both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from core.ports.records import Records

if TYPE_CHECKING:
    from core.model.records import Body, Record, RecordKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """What is looked for. vector: as `core.model.vectors` makes it of such a record; text: words.

    weight: of the vector against the words where both are given, 0 to 1. where: as of `Records.page`.
    """

    vector: Sequence[float] = ()
    text: str = ""
    weight: float = 0.5
    where: Mapping[str, str] = field(default_factory=dict)
    limit: int = 10

    @property
    def by_vector(self) -> bool:
        return bool(self.vector) and (self.weight > 0 or not self.text)

    @property
    def by_words(self) -> bool:
        return bool(self.text) and (self.weight < 1 or not self.vector)


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A record that was found. score: 1 at most, 0 for nothing in common; comparable within one answer only.

    By the vector it is the cosine, by words the share of the best one's, by both their weighted mean after each is
    stretched to 0 to 1 over what was found.
    """

    record: Record[Any]
    score: float


class Similarity(Records, Protocol):
    """The records that are found by what they are like. Each gets its vector when it is written."""

    async def similar(self, kind: RecordKind, tenant: str, likeness: Likeness) -> Sequence[Match]:
        """Return the records most like it, the best first; by words alone only those that have one of them.

        Raises: Unavailable.
        """

    async def load(self, kind: RecordKind, tenant: str, bodies: Mapping[str, Body], *, version: str) -> int:
        """Keep many records by id, each in place of the one that is there, whatever its version; return how many.

        Some may be kept where it raises; asking again keeps the others. Raises: Unavailable.
        """

    async def ping(self) -> None:
        """Raises: Unavailable."""
