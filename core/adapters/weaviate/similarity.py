"""Similarity in Weaviate: near vectors, BM25 and both at once, and loading in batches.

A load holds no locks: it replaces whatever is there.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from core.adapters.weaviate.client import Weaviate
from core.adapters.weaviate.driver import (
    Filter,
    HybridFusion,
    MetadataQuery,
    WeaviateInsertManyAllFailedError,
)
from core.adapters.weaviate.objects import (
    RETURNED,
    SORT_KEY,
    WORDS,
    condition,
    data_object,
    record_of,
    sort_key,
)
from core.adapters.weaviate.records import Collection, WeaviateRecords, written
from core.errors.exceptions import Defect, Unavailable
from core.model.records import Body, Record, RecordKind
from core.model.words import asked
from core.ports.similarity import Likeness, Match
from core.settings import Settings

LOADED_OBJECTS: Final = 200
"""Of one batch: with the longest bodies about 5 MB."""


class WeaviateSimilarity(WeaviateRecords):
    """The `Similarity` port on Weaviate."""

    async def similar(self, kind: RecordKind, tenant: str, likeness: Likeness) -> Sequence[Match]:
        collection = await self.part(kind, tenant)
        if collection is None:
            return ()
        words = " ".join(asked(likeness.text)) if likeness.by_words else ""
        if words and likeness.by_vector:
            return await self._both(collection, kind, likeness, words)
        if words:
            return await self._worded(collection, kind, likeness, words)
        return await self._nearest(collection, kind, likeness) if likeness.by_vector else ()

    async def load(self, kind: RecordKind, tenant: str, bodies: Mapping[str, Body], *, version: str) -> int:
        collection = await self.part_for_writing(kind, tenant)
        ids = sorted(bodies)
        for start in range(0, len(ids), LOADED_OBJECTS):
            batch = ids[start : start + LOADED_OBJECTS]
            known = await self._several(collection, kind, batch)
            records = [
                written(key, bodies[key], version, known.get(key))
                for key in batch
                # What an earlier try has kept is left as it is.
                if key not in known or known[key].version != version
            ]
            if records:
                await inserted(
                    self._weaviate, collection, [data_object(kind, tenant, record) for record in records]
                )
        return len(ids)

    async def _several(
        self, collection: Collection, kind: RecordKind, ids: Sequence[str]
    ) -> dict[str, Record[Any]]:
        keys = [sort_key(key) for key in ids]
        found = await self._weaviate.ask(
            lambda: collection.query.fetch_objects(
                filters=Filter.by_property(SORT_KEY).contains_any(keys),
                limit=len(keys),
                return_properties=RETURNED,
            )
        )
        records = [record_of(kind, one) for one in found.objects]
        return {record.id: record for record in records}

    async def _nearest(self, collection: Collection, kind: RecordKind, likeness: Likeness) -> list[Match]:
        found = await self._weaviate.ask(
            lambda: collection.query.near_vector(
                list(likeness.vector),
                limit=likeness.limit,
                filters=condition(kind, likeness.where),
                return_metadata=MetadataQuery(distance=True),
                return_properties=RETURNED,
            )
        )
        distances = [one.metadata.distance for one in found.objects]
        scores = [None if distance is None else 1.0 - distance for distance in distances]
        return _matches(kind, found.objects, scores)

    async def _worded(
        self, collection: Collection, kind: RecordKind, likeness: Likeness, words: str
    ) -> list[Match]:
        found = await self._weaviate.ask(
            lambda: collection.query.bm25(
                words,
                query_properties=[WORDS],
                limit=likeness.limit,
                filters=condition(kind, likeness.where),
                return_metadata=MetadataQuery(score=True),
                return_properties=RETURNED,
            )
        )
        scores = [one.metadata.score for one in found.objects]
        best = max((score or 0.0 for score in scores), default=0.0) or 1.0
        return _matches(kind, found.objects, [None if score is None else score / best for score in scores])

    async def _both(
        self, collection: Collection, kind: RecordKind, likeness: Likeness, words: str
    ) -> list[Match]:
        found = await self._weaviate.ask(
            lambda: collection.query.hybrid(
                words,
                alpha=likeness.weight,
                vector=list(likeness.vector),
                query_properties=[WORDS],
                fusion_type=HybridFusion.RELATIVE_SCORE,
                limit=likeness.limit,
                filters=condition(kind, likeness.where),
                return_metadata=MetadataQuery(score=True),
                return_properties=RETURNED,
            )
        )
        return _matches(kind, found.objects, [one.metadata.score for one in found.objects])


async def inserted(weaviate: Weaviate, collection: Collection, objects: Sequence[Any]) -> None:
    """Insert or replace objects. Raises: Unavailable: some or all could not be kept."""

    async def insert() -> Any:
        try:
            return (await collection.data.insert_many(objects)).errors
        except WeaviateInsertManyAllFailedError as e:
            return {0: e}

    if errors := await weaviate.ask(insert):
        first = next(iter(errors.values()))
        detail = f"{len(errors)} of {len(objects)}: {getattr(first, 'message', first)}"[:300]
        raise Unavailable("Weaviate could not keep all of them", code="SIMILARITY_UNAVAILABLE", detail=detail)


def _matches(kind: RecordKind, objects: Sequence[Any], scores: Sequence[float | None]) -> list[Match]:
    if None in scores:
        raise Defect("Weaviate answered without scores", code="SIMILARITY_UNSCORED")
    return [
        # Its floats are short, so the same may be a little more than the same.
        Match(record=record_of(kind, one), score=min(1.0, max(0.0, score or 0.0)))
        for one, score in zip(objects, scores, strict=True)
    ]


@asynccontextmanager
async def open_similarity(
    _settings: Settings, services: Mapping[str, Any]
) -> AsyncIterator[WeaviateSimilarity]:
    yield WeaviateSimilarity(services["weaviate"], services["locks"])
