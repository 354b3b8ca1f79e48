"""The statements of one kind of records: a table of its own, with a column for each field of the body."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
import msgspec

from core.model.records import SHELVES, Body, Record, RecordKind

_HEAD: Final = ("id", "version", "created_at", "updated_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """fields: of the body, in the order of their columns; made: columns beside them that follow from the body."""

    kind: RecordKind
    name: str
    body: type[Body]
    fields: tuple[str, ...]
    made: tuple[str, ...] = ()

    @property
    def columns(self) -> str:
        return ", ".join((*_HEAD, *map(quoted, self.fields)))

    @property
    def written(self) -> list[str]:
        return [quoted(name) for name in (*self.fields, *self.made)]

    @property
    def insertion(self) -> str:
        names = ", ".join(["tenant", "id", "version", *self.written])
        places = ", ".join(["$1", "$2", "$3", *self.places(4)])
        return f"insert into {self.name} ({names}) values ({places})"

    @property
    def insert(self) -> str:
        return f"{self.insertion} on conflict (tenant, id) do nothing returning {self.columns}"

    @property
    def load(self) -> str:
        changes = ", ".join(f"{name} = excluded.{name}" for name in self.written)
        return (
            f"{self.insertion} on conflict (tenant, id) do update"
            f" set version = excluded.version, updated_at = now(), {changes}"
            f" where {self.name}.version <> excluded.version"
        )

    @property
    def update(self) -> str:
        written = zip(self.written, self.places(5), strict=True)
        changes = ", ".join(f"{name} = {place}" for name, place in written)
        return (
            f"update {self.name} set version = $3, updated_at = now(), {changes}"
            f" where tenant = $1 and id = $2 and ($4::text is null or version = $4) returning {self.columns}"
        )

    @property
    def select(self) -> str:
        return f"select {self.columns} from {self.name} where tenant = $1 and id = $2"

    def places(self, first: int) -> list[str]:
        """Return the parameters of what is written; `first` is the number of the first one's."""
        return [f"${number}" for number in range(first, first + len(self.written))]

    def page(self, where: Sequence[str]) -> str:
        return (
            f"select {self.columns} from {self.name} where tenant = $1 and ($2::text is null or id > $2)"
            f"{conditions(where, 4)} order by id limit $3"
        )

    @property
    def delete(self) -> str:
        return (
            f"delete from {self.name} where tenant = $1 and id = $2 and ($3::text is null or version = $3)"
            " returning id"
        )

    def filters(self, where: Mapping[str, str]) -> list[str]:
        """Return the columns to filter by. They come from the shelf's own list, never from a caller."""
        return [name for name in SHELVES[self.kind].filters if name in where]

    def values(self, body: Body) -> tuple[Any, ...]:
        """Return what is written of a body, in the order of `written`."""
        return tuple(getattr(body, name) for name in self.fields)

    def record(self, row: asyncpg.Record) -> Record[Any]:
        return Record(
            id=row["id"],
            version=row["version"],
            created_at_ms=round(row["created_at"].timestamp() * 1_000),
            updated_at_ms=round(row["updated_at"].timestamp() * 1_000),
            body=self.body(**{name: row[name] for name in self.fields}),
        )


def described(kind: RecordKind) -> dict[str, Any]:
    """Return what a kind's shelf says of its table: the arguments of a `Table`."""
    body = SHELVES[kind].body
    fields = tuple(field.name for field in msgspec.structs.fields(body))
    return {"kind": kind, "name": kind.replace("-", "_"), "body": body, "fields": fields}


def quoted(name: str) -> str:
    """Return a column's name as SQL takes it, whatever word it is."""
    return f'"{name}"'


def conditions(names: Sequence[str], first: int) -> str:
    """Return that each column equals its parameter; `first` is the number of the first one's."""
    return "".join(f" and {quoted(name)} = ${number}" for number, name in enumerate(names, first))
