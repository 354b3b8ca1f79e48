"""The statements of similarity's tables: a column for each field of the body, its vector, and its words."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
import msgspec

from core.model.records import SHELVES, Body, Record, RecordKind
from core.model.vectors import DIMENSIONS, vector_of
from core.model.words import words_of

POSITION_MAX: Final = 16_383
OCCURRENCES_MAX: Final = 255
"""PostgreSQL keeps no more of one word."""
BM25_K1: Final = 1.2
BM25_B: Final = 0.75
"""As Weaviate has them."""
_HEAD: Final = ("id", "version", "created_at", "updated_at")
_MADE: Final = ("vector", "words", "words_count")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The statements of one kind. fields: of the body, in the order of their columns."""

    kind: RecordKind
    name: str
    body: type[Body]
    fields: tuple[str, ...]

    @property
    def columns(self) -> str:
        return ", ".join((*_HEAD, *map(_quoted, self.fields)))

    @property
    def insert(self) -> str:
        written = (*self.fields, *_MADE)
        places = ", ".join(f"${number}" for number in range(4, 4 + len(written)))
        names = ", ".join(map(_quoted, written))
        return f"insert into {self.name} (tenant, id, version, {names}) values ($1, $2, $3, {places})"

    @property
    def create(self) -> str:
        return f"{self.insert} on conflict (tenant, id) do nothing returning {self.columns}"

    @property
    def load(self) -> str:
        changes = ", ".join(f"{_quoted(name)} = excluded.{_quoted(name)}" for name in (*self.fields, *_MADE))
        return (
            f"{self.insert} on conflict (tenant, id) do update set version = excluded.version, updated_at = now(),"
            f" {changes} where {self.name}.version <> excluded.version"
        )

    @property
    def update(self) -> str:
        changes = ", ".join(
            f"{_quoted(name)} = ${number}" for number, name in enumerate((*self.fields, *_MADE), 5)
        )
        return (
            f"update {self.name} set version = $3, updated_at = now(), {changes}"
            f" where tenant = $1 and id = $2 and ($4::text is null or version = $4) returning {self.columns}"
        )

    @property
    def select(self) -> str:
        return f"select {self.columns} from {self.name} where tenant = $1 and id = $2"

    @property
    def several(self) -> str:
        return f"select {self.columns} from {self.name} where tenant = $1 and id = any($2::text[])"

    @property
    def delete(self) -> str:
        return (
            f"delete from {self.name} where tenant = $1 and id = $2 and ($3::text is null or version = $3)"
            " returning id"
        )

    def page(self, where: Sequence[str]) -> str:
        return (
            f"select {self.columns} from {self.name} where tenant = $1 and ($2::text is null or id > $2)"
            f"{_conditions(where, 4)} order by id limit $3"
        )

    def nearest(self, where: Sequence[str]) -> str:
        """Ids and distances: $1 tenant, $2 vector, $3 limit, then the filters."""
        size = DIMENSIONS[self.kind]
        distance = f"vector::vector({size}) <=> $2::real[]::vector({size})"
        return (
            f"select id, {distance} as distance from {self.name} where tenant = $1{_conditions(where, 4)}"
            f" order by {distance} limit $3"
        )

    def worded(self, where: Sequence[str]) -> str:
        """Ids and BM25 scores: $1 tenant, $2 words, $3 limit, then the filters.

        How rare a word is counts over all of the tenant's records of the kind, whatever is filtered.
        """
        return (
            "with corpus as (select count(*)::float8 as size, avg(words_count)::float8 as length"
            f" from {self.name} where tenant = $1),"
            " rarity as (select word, (select count(*) from"
            f" {self.name} where tenant = $1 and words @@ word::tsquery)::float8 as holders"
            " from unnest($2::text[]) as asked (word))"
            " select id, sum(ln(1 + (size - holders + 0.5) / (holders + 0.5)) * often * ("
            f"{BM25_K1} + 1) / (often + {BM25_K1} * (1 - {BM25_B} + {BM25_B} * words_count / length))) as score"
            f" from {self.name}, corpus,"
            " lateral (select lexeme, cardinality(positions)::float8 as often from unnest(words)) as found"
            " join rarity on rarity.word = found.lexeme"
            f" where tenant = $1 and words @@ array_to_string($2::text[], '|')::tsquery{_conditions(where, 4)}"
            " group by id order by score desc, id limit $3"
        )

    def values(self, body: Body) -> tuple[Any, ...]:
        """Return what `insert` and `update` write, in their order."""
        words = words_of(body)
        fields = (getattr(body, name) for name in self.fields)
        return (*fields, vector_of(body), _tsvector(words), len(words))

    def record(self, row: asyncpg.Record) -> Record[Any]:
        return Record(
            id=row["id"],
            version=row["version"],
            created_at_ms=round(row["created_at"].timestamp() * 1_000),
            updated_at_ms=round(row["updated_at"].timestamp() * 1_000),
            body=self.body(**{name: row[name] for name in self.fields}),
        )

    def filters(self, where: Mapping[str, str]) -> list[str]:
        """Return the names to filter by; they come from the shelf's own list, never from a caller."""
        return [name for name in SHELVES[self.kind].filters if name in where]


def _table(kind: RecordKind) -> Table:
    body = SHELVES[kind].body
    fields = tuple(field.name for field in msgspec.structs.fields(body))
    return Table(kind=kind, name=kind.replace("-", "_"), body=body, fields=fields)


def _quoted(name: str) -> str:
    return f'"{name}"'


def _conditions(names: Sequence[str], first: int) -> str:
    return "".join(f" and {_quoted(name)} = ${number}" for number, name in enumerate(names, first))


def _tsvector(words: Sequence[str]) -> str:
    """Write words as a tsvector. They are letters and digits, so nothing in them needs escaping."""
    positions: defaultdict[str, list[str]] = defaultdict(list)
    for position, word in enumerate(words, 1):
        if len(positions[word]) < OCCURRENCES_MAX:
            # Positions that are the same count once, so those beyond the last one do not count.
            positions[word].append(str(min(position, POSITION_MAX)))
    return " ".join(f"'{word}':{','.join(places)}" for word, places in positions.items())


TABLES: Final = {kind: _table(kind) for kind, shelf in SHELVES.items() if shelf.keeper == "similarity"}
