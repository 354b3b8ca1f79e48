"""Bring Weaviate's schema forward. A step is a JSON list of collections; one that is there already is not made again,
so that an interrupted step is finished by applying it once more.
"""

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from core.adapters.weaviate.client import STEPS_COLLECTION, Weaviate, connect
from core.ports.schemas import SchemaStep
from core.settings import Settings

STEPS_MAX: Final = 1_000
_STEPS: Final[Mapping[str, Any]] = {
    "class": STEPS_COLLECTION,
    "description": "The steps of tickgate's schema that were applied.",
    "vectorizer": "none",
    "properties": [
        {"name": "number", "dataType": ["int"]},
        {"name": "name", "dataType": ["text"], "tokenization": "field"},
        {"name": "checksum", "dataType": ["text"], "tokenization": "field"},
    ],
}


class WeaviateSchema:
    """The `Schema` port on Weaviate. The ledger's migration lock is held around it."""

    def __init__(self, weaviate: Weaviate) -> None:
        self._weaviate = weaviate

    async def applied(self) -> Mapping[int, str]:
        await self._make(_STEPS)
        return await applied_steps(self._weaviate)

    async def apply(self, step: SchemaStep) -> None:
        for definition in msgspec.json.decode(step.sql):
            await self._make(definition)
        steps = self._weaviate.collection(STEPS_COLLECTION)
        note = {"number": step.number, "name": step.name, "checksum": step.checksum}
        noted_as = uuid.uuid5(uuid.NAMESPACE_OID, f"tickgate schema {step.number}")
        await self._weaviate.ask(lambda: steps.data.insert(properties=note, uuid=noted_as))

    async def _make(self, definition: Mapping[str, Any]) -> None:
        collections = self._weaviate.client.collections
        if not await self._weaviate.ask(lambda: collections.exists(definition["class"])):
            await self._weaviate.ask(lambda: collections.create_from_dict(dict(definition)))


async def applied_steps(weaviate: Weaviate) -> Mapping[int, str]:
    """Return the checksum of every step applied, by number; nothing is written. Raises: Unavailable."""
    if not await weaviate.ask(lambda: weaviate.client.collections.exists(STEPS_COLLECTION)):
        return {}
    steps = weaviate.collection(STEPS_COLLECTION)
    found = await weaviate.ask(lambda: steps.query.fetch_objects(limit=STEPS_MAX))
    return {int(step.properties["number"]): step.properties["checksum"] for step in found.objects}


@asynccontextmanager
async def open_schema(settings: Settings) -> AsyncIterator[WeaviateSchema]:
    """Raises: Unavailable: nobody answers yet. Misconfigured: wrong key, or too old."""
    async with connect(settings.weaviate) as weaviate:
        yield WeaviateSchema(weaviate)
