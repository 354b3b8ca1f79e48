"""Write similar records down, and bring them back. Vectors are not kept: they are made of the body again."""

from collections.abc import AsyncIterable, AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import msgspec

from core.adapters.weaviate.client import Weaviate
from core.adapters.weaviate.driver import CollectionAsync, DataObject, Filter, Sort
from core.adapters.weaviate.objects import COLLECTIONS, RETURNED, SORT_KEY, properties, record_of
from core.adapters.weaviate.similarity import inserted
from core.model.records import SHELVES, Record, RecordKind
from core.model.vectors import vector_of
from core.ports.backups import Epochs, Sink
from core.settings import Settings

BATCH: Final = 200
"""With the longest bodies about 5 MB."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One record. part: what its tenant is called there; object: the id of its object."""

    part: str
    object: str
    id: str
    version: str
    created_at_ms: int
    updated_at_ms: int
    body: msgspec.Raw


class WeaviateSnapshot:
    """The `Snapshot` port on Weaviate: each record as it is when it is read."""

    def __init__(self, weaviate: Weaviate) -> None:
        self._weaviate = weaviate
        self.parts: Sequence[str] = [str(kind) for kind in COLLECTIONS]

    async def write(self, part: str, sink: Sink) -> None:
        kind = RecordKind(part)
        for name in await _tenants(self._weaviate, kind):
            collection = self._weaviate.collection(COLLECTIONS[kind], name)
            after = ""
            while True:
                found = await self._weaviate.ask(partial(_page, collection, after))
                if not found:
                    break
                after = str(found[-1].properties[SORT_KEY])
                lines = [_line(kind, name, one) for one in found]
                await sink(b"".join(lines), len(lines))


class WeaviateLoading:
    """The `Loading` port on Weaviate."""

    def __init__(self, weaviate: Weaviate) -> None:
        self._weaviate = weaviate

    async def occupied(self) -> str:
        for kind in COLLECTIONS:
            for name in await _tenants(self._weaviate, kind):
                collection = self._weaviate.collection(COLLECTIONS[kind], name)
                if await self._weaviate.ask(partial(_page, collection, "")):
                    return f"{kind} of {name}"
        return ""

    async def clear(self) -> None:
        for kind in COLLECTIONS:
            if names := await _tenants(self._weaviate, kind):
                whole = self._weaviate.collection(COLLECTIONS[kind])
                await self._weaviate.ask(partial(whole.tenants.remove, names))

    def order(self, parts: Collection[str]) -> Sequence[str]:
        return sorted(parts)

    async def load(self, part: str, pieces: AsyncIterable[bytes]) -> int:
        kind, count = RecordKind(part), 0
        known = set(await _tenants(self._weaviate, kind))
        whole = self._weaviate.collection(COLLECTIONS[kind])
        async for piece in pieces:
            lines = [msgspec.json.decode(line, type=Line) for line in piece.splitlines()]
            for name in {line.part for line in lines}:
                if name not in known:
                    await self._weaviate.ask(partial(whole.tenants.create, name))
                    known.add(name)
                collection = self._weaviate.collection(COLLECTIONS[kind], name)
                objects = [_object(kind, line) for line in lines if line.part == name]
                await inserted(self._weaviate, collection, objects)
            count += len(lines)
        return count


class WeaviateDumps:
    """The `Dumps` port on Weaviate."""

    def __init__(self, weaviate: Weaviate) -> None:
        self._weaviate = weaviate

    @asynccontextmanager
    async def snapshot(self, _epochs: Epochs) -> AsyncIterator[WeaviateSnapshot]:
        yield WeaviateSnapshot(self._weaviate)

    @asynccontextmanager
    async def loading(self) -> AsyncIterator[WeaviateLoading]:
        yield WeaviateLoading(self._weaviate)


async def _page(collection: CollectionAsync[Any, Any], after: str) -> Sequence[Any]:
    found = await collection.query.fetch_objects(
        filters=Filter.by_property(SORT_KEY).greater_than(after) if after else None,
        sort=Sort.by_property(SORT_KEY),
        limit=BATCH,
        return_properties=[*RETURNED, SORT_KEY],
    )
    return found.objects


async def _tenants(weaviate: Weaviate, kind: RecordKind) -> list[str]:
    whole = weaviate.collection(COLLECTIONS[kind])
    return sorted(await weaviate.ask(whole.tenants.get))


def _line(kind: RecordKind, name: str, found: Any) -> bytes:
    record = record_of(kind, found)
    line = Line(
        part=name,
        object=str(found.uuid),
        id=record.id,
        version=record.version,
        created_at_ms=record.created_at_ms,
        updated_at_ms=record.updated_at_ms,
        body=msgspec.Raw(msgspec.json.encode(record.body)),
    )
    return msgspec.json.encode(line) + b"\n"


def _object(kind: RecordKind, line: Line) -> Any:
    body = msgspec.json.decode(line.body, type=SHELVES[kind].body)
    record = Record(
        id=line.id,
        version=line.version,
        created_at_ms=line.created_at_ms,
        updated_at_ms=line.updated_at_ms,
        body=body,
    )
    return DataObject(properties=properties(kind, record), uuid=line.object, vector=vector_of(body))


@asynccontextmanager
async def open_dumps(_settings: Settings, services: Mapping[str, Any]) -> AsyncIterator[WeaviateDumps]:
    yield WeaviateDumps(services["weaviate"])
