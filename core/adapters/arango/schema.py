"""Bring ArangoDB's schema forward. A step is a JSON list of collections, indexes and graphs; what is there already is
not made again, so that an interrupted step is finished by applying it once more.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from arango.database import StandardDatabase

from core.adapters.arango.client import STEPS_COLLECTION, Arango, connect
from core.ports.schemas import SchemaStep
from core.settings import Settings


class ArangoSchema:
    """The `Schema` port on ArangoDB. The ledger's migration lock is held around it."""

    def __init__(self, arango: Arango) -> None:
        self._arango = arango

    async def applied(self) -> Mapping[int, str]:
        return await applied_steps(self._arango)

    async def apply(self, step: SchemaStep) -> None:
        def make(database: StandardDatabase) -> None:
            for thing in msgspec.json.decode(step.sql):
                _make(database, thing)
            _make(database, {"collection": STEPS_COLLECTION})
            note = {"_key": f"{step.number:04}", "number": step.number, "name": step.name}
            steps = database.collection(STEPS_COLLECTION)
            steps.insert({**note, "checksum": step.checksum}, overwrite_mode="replace", silent=True)

        await self._arango.ask(make)


def _make(database: StandardDatabase, thing: Mapping[str, Any]) -> None:
    if "graph" in thing:
        if not database.has_graph(thing["graph"]):
            database.create_graph(thing["graph"], edge_definitions=thing["edge_definitions"])
    elif "index" in thing:
        # One that is there and the same is answered as it is.
        database.collection(thing["collection"]).add_index(dict(thing["index"]))
    elif not database.has_collection(thing["collection"]):
        database.create_collection(thing["collection"], edge=thing.get("edge", False))


async def applied_steps(arango: Arango) -> Mapping[int, str]:
    """Return the checksum of every step applied, by number; nothing is written. Raises: Unavailable."""

    def read(database: StandardDatabase) -> dict[int, str]:
        if not database.has_collection(STEPS_COLLECTION):
            return {}
        cursor = database.aql.execute(f"FOR step IN {STEPS_COLLECTION} RETURN step")
        return {int(step["number"]): str(step["checksum"]) for step in cursor}  # type: ignore[union-attr]

    return await arango.ask(read)


@asynccontextmanager
async def open_schema(settings: Settings) -> AsyncIterator[ArangoSchema]:
    """Raises: Unavailable: nobody answers yet. Misconfigured: see `connect`."""
    async with connect(settings.arango) as arango:
        yield ArangoSchema(arango)
