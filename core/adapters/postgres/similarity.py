"""Similarity in PostgreSQL: pgvector for nearness, BM25 in SQL for words, both fused as Weaviate fuses them."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

from core.adapters.postgres.fusion import fused
from core.adapters.postgres.pool import Postgres
from core.adapters.postgres.records import PostgresRecords
from core.adapters.postgres.similarity_tables import TABLES, SimilarityTable
from core.errors.exceptions import Unavailable
from core.model.records import Body, RecordKind
from core.model.words import asked
from core.ports.similarity import Likeness, Match
from core.settings import Settings

CANDIDATES_MIN: Final = 100
"""Of each ranking before they are fused, as Weaviate takes."""
EFFORT_MAX: Final = 1_000
"""pgvector's own limit of what one round of the index finds."""
SCANNED_ROWS_MAX: Final = 20_000
"""Of the index, while filters leave too few; then fewer are answered."""
LOADED_ROWS: Final = 500
"""Of one transaction."""


class PostgresSimilarity(PostgresRecords):
    """The `Similarity` port on PostgreSQL."""

    def __init__(self, postgres: Postgres) -> None:
        super().__init__(postgres, TABLES)

    async def similar(self, kind: RecordKind, tenant: str, likeness: Likeness) -> Sequence[Match]:
        table = TABLES[kind]
        async with self._postgres.of_tenant(tenant) as connection:
            scores = await _scores(connection, table, tenant, likeness)
            best = sorted(scores, key=lambda key: (-scores[key], key))[: likeness.limit]
            rows = await connection.fetch(table.several, tenant, best)
        records = {row["id"]: table.record(row) for row in rows}
        return [Match(record=records[key], score=scores[key]) for key in best if key in records]

    async def load(self, kind: RecordKind, tenant: str, bodies: Mapping[str, Body], *, version: str) -> int:
        table = TABLES[kind]
        # In the order of their ids, so that two loads of the same records never wait for each other in a circle.
        ids = sorted(bodies)
        for start in range(0, len(ids), LOADED_ROWS):
            batch = ids[start : start + LOADED_ROWS]
            rows = [(tenant, key, version, *table.values(bodies[key])) for key in batch]
            async with self._postgres.of_tenant(tenant) as connection:
                await connection.executemany(table.load, rows)
        return len(ids)

    async def ping(self) -> None:
        await self._postgres.ping()


async def _scores(
    connection: asyncpg.Connection, table: SimilarityTable, tenant: str, likeness: Likeness
) -> dict[str, float]:
    """Return the score of each record that may be answered, 0 to 1."""
    words = likeness.by_words and bool(asked(likeness.text))
    both = words and likeness.by_vector
    limit = max(likeness.limit, CANDIDATES_MIN) if both else likeness.limit
    near = await _nearest(connection, table, tenant, likeness, limit) if likeness.by_vector else {}
    worded = await _worded(connection, table, tenant, likeness, limit) if words else {}
    if both:
        return fused(near, worded, likeness.weight)
    if words:
        best = max(worded.values(), default=1.0)
        return {key: score / best for key, score in worded.items()}
    return {key: min(1.0, max(0.0, score)) for key, score in near.items()}


async def _nearest(
    connection: asyncpg.Connection, table: SimilarityTable, tenant: str, likeness: Likeness, limit: int
) -> dict[str, float]:
    """Return the cosines of the nearest: exactly where the planner reads all, nearly so where it uses the index."""
    await connection.execute(
        # Without it a filter could leave nothing of the few that one round of the index finds.
        "select set_config('hnsw.iterative_scan', 'strict_order', true),"
        " set_config('hnsw.ef_search', $1, true), set_config('hnsw.max_scan_tuples', $2, true)",
        str(min(max(limit, CANDIDATES_MIN), EFFORT_MAX)),
        str(SCANNED_ROWS_MAX),
    )
    names = table.filters(likeness.where)
    values = [likeness.where[name] for name in names]
    try:
        rows = await connection.fetch(table.nearest(names), tenant, list(likeness.vector), limit, *values)
    except asyncpg.UndefinedObjectError as e:
        raise Unavailable(
            "nothing can be found by nearness: PostgreSQL has no pgvector, and no Weaviate is set",
            code="PGVECTOR_MISSING",
        ) from e
    return {row["id"]: 1.0 - row["distance"] for row in rows}


async def _worded(
    connection: asyncpg.Connection, table: SimilarityTable, tenant: str, likeness: Likeness, limit: int
) -> dict[str, float]:
    names = table.filters(likeness.where)
    values = [likeness.where[name] for name in names]
    rows = await connection.fetch(table.worded(names), tenant, asked(likeness.text), limit, *values)
    return {row["id"]: row["score"] for row in rows}


@asynccontextmanager
async def open_similarity(
    _settings: Settings, services: Mapping[str, Any]
) -> AsyncIterator[PostgresSimilarity]:
    yield PostgresSimilarity(services["postgres"])
