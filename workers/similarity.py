"""Search: the records most like a body, like another record, or with the words that are asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from core.infrastructure.central_hub import Hub
from core.messages.jobs import Answer
from core.messages.similarity import SEARCHED, SimilarityQuestion
from core.model.records import SHELVES, Body, RecordKind
from core.model.vectors import vector_of
from core.ports.jobs import JobFunction
from core.ports.similarity import Likeness, Match, Similarity
from core.settings import Settings
from workers.answering import converted, page, question
from workers.records import record_fields


@dataclass(frozen=True, slots=True, kw_only=True)
class SimilarityJobs:
    """Searches the records of one kind."""

    kind: RecordKind
    keeper: Similarity

    def functions(self) -> Sequence[JobFunction]:
        return [question(f"{self.kind}.search", self.search)]

    async def search(self, asked: SimilarityQuestion, tenant: str) -> Answer:
        body = await self._pattern(asked, tenant)
        likeness = Likeness(
            vector=() if body is None else vector_of(body),
            text=asked.text,
            weight=asked.weight,
            where=asked.where,
            limit=asked.limit,
        )
        if asked.id is None:
            return page(map(_match_fields, await self.keeper.similar(self.kind, tenant, likeness)))
        found = await self.keeper.similar(self.kind, tenant, replace(likeness, limit=asked.limit + 1))
        others = [match for match in found if match.record.id != asked.id]
        return page(map(_match_fields, others[: asked.limit]))

    async def _pattern(self, asked: SimilarityQuestion, tenant: str) -> Body | None:
        """Return the body whose like is looked for. Raises: NotFound: of a record that is not there."""
        body: Body | None = None
        if asked.id is not None:
            body = (await self.keeper.read(self.kind, tenant, asked.id)).body
        elif asked.like is not None:
            body = converted(asked.like, SHELVES[self.kind].body)
        return body


def functions(hub: Hub, _settings: Settings) -> Sequence[JobFunction]:
    """Return the functions over this hub's keeper of similar records."""
    jobs = [SimilarityJobs(kind=kind, keeper=hub[SHELVES[kind].keeper]) for kind in SEARCHED]
    return [function for job in jobs for function in job.functions()]


def _match_fields(match: Match) -> dict[str, Any]:
    return {**record_fields(match.record), "score": match.score}
