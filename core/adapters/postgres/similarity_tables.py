"""The statements that find records: by their vectors, by their words, and where both are written."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from core.adapters.postgres.record_tables import Table, conditions, described
from core.model.records import SHELVES, Body
from core.model.vectors import DIMENSIONS, vector_of
from core.model.words import words_of

POSITION_MAX: Final = 16_383
OCCURRENCES_MAX: Final = 255
"""PostgreSQL keeps no more of one word."""
BM25_K1: Final = 1.2
BM25_B: Final = 0.75
"""As Weaviate has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimilarityTable(Table):
    """A table with vectors and words."""

    made: tuple[str, ...] = ("vector", "words", "words_count")

    def places(self, first: int) -> list[str]:
        places = Table.places(self, first)
        # The column is pgvector's where there is one. The driver does not know that type; arrays can be assigned to it.
        places[len(self.fields)] += "::real[]"
        return places

    @property
    def several(self) -> str:
        return f"select {self.columns} from {self.name} where tenant = $1 and id = any($2::text[])"

    def nearest(self, where: Sequence[str]) -> str:
        """Ids and distances: $1 tenant, $2 vector, $3 limit, then the filters."""
        size = DIMENSIONS[self.kind]
        distance = f"vector::vector({size}) <=> $2::real[]::vector({size})"
        return (
            f"select id, {distance} as distance from {self.name} where tenant = $1{conditions(where, 4)}"
            f" order by {distance} limit $3"
        )

    def worded(self, where: Sequence[str]) -> str:
        """Ids and BM25 scores: $1 tenant, $2 words, $3 limit, then the filters.

        How rare a word is counts over all of the tenant's records of the kind, whatever is filtered.
        """
        # Row-level security lets no index of words be asked before the tenant has been, so its rows are read once.
        return (
            "with corpus as materialized (select count(*)::float8 as size, avg(words_count)::float8 as length"
            f" from {self.name} where tenant = $1),"
            " found as materialized (select id, words_count, lexeme, cardinality(positions)::float8 as often,"
            f" (true{conditions(where, 4)}) as kept from {self.name}, lateral unnest(words)"
            " where tenant = $1 and words @@ array_to_string($2::text[], '|')::tsquery and lexeme = any($2)),"
            " rarity as materialized (select lexeme, ln(1 + (size - count(*) + 0.5) / (count(*) + 0.5)) as rare"
            " from found, corpus group by lexeme, size)"
            f" select id, sum(rare * often * ({BM25_K1} + 1)"
            f" / (often + {BM25_K1} * (1 - {BM25_B} + {BM25_B} * words_count / length))) as score"
            " from found join rarity using (lexeme), corpus where kept group by id order by score desc, id limit $3"
        )

    def values(self, body: Body) -> tuple[Any, ...]:
        words = words_of(body)
        # super() without arguments does not work in a class with slots on Python 3.11.
        return (*Table.values(self, body), vector_of(body), _tsvector(words), len(words))


def _tsvector(words: Sequence[str]) -> str:
    """Write words as a tsvector. They are letters and digits, so nothing in them needs escaping."""
    positions: defaultdict[str, list[str]] = defaultdict(list)
    for position, word in enumerate(words, 1):
        if len(positions[word]) < OCCURRENCES_MAX:
            # Positions that are the same count once, so those beyond the last one do not count.
            positions[word].append(str(min(position, POSITION_MAX)))
    return " ".join(f"'{word}':{','.join(places)}" for word, places in positions.items())


TABLES: Final = {
    kind: SimilarityTable(**described(kind))
    for kind, shelf in SHELVES.items()
    if shelf.keeper == "similarity"
}
