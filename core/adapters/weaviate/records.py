"""Records in Weaviate. A tenant is a tenant there as well: a shard of its own, so no query can reach another's.

Weaviate cannot compare and set, so whoever writes a record holds its lock from reading to writing.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from core.adapters.weaviate.client import Weaviate
from core.adapters.weaviate.driver import CollectionAsync, Sort
from core.adapters.weaviate.objects import (
    COLLECTIONS,
    RETURNED,
    SORT_KEY,
    condition,
    object_id,
    properties,
    record_of,
    tenant_name,
)
from core.errors.exceptions import Conflict, Defect, NotFound
from core.model.records import Body, Record, RecordKind
from core.model.vectors import vector_of
from core.ports.locks import Locks

Collection = CollectionAsync[Any, Any]
TENANT_KNOWN_S: Final = 60.0
"""After that it is looked for again: Weaviate may have been emptied or restored."""


class WeaviateRecords:
    """The `Records` port on Weaviate."""

    def __init__(self, weaviate: Weaviate, locks: Locks) -> None:
        self._weaviate = weaviate
        self._locks = locks
        self._tenants: dict[tuple[RecordKind, str], float] = {}

    async def create(
        self, kind: RecordKind, tenant: str, record_id: str, body: Body, *, version: str
    ) -> Record[Any]:
        collection = await self.part_for_writing(kind, tenant)
        record = written(record_id, body, version, None)
        async with self._locks.held(tenant, kind, record_id):
            found = await self.find(collection, kind, tenant, record_id)
            if found is None:
                try:
                    await self._insert_one(collection, kind, tenant, record)
                except Defect:
                    # A try before this one may have been given up, and done all the same.
                    found = await self.find(collection, kind, tenant, record_id)
                    if found is None:
                        raise
        if found is not None and found.version != version:
            raise Conflict(f"{record_id!r} is there already", code="RECORD_EXISTS")
        return found or record

    async def read(self, kind: RecordKind, tenant: str, record_id: str) -> Record[Any]:
        collection = await self.part(kind, tenant)
        found = await self.find(collection, kind, tenant, record_id) if collection is not None else None
        return _there(found, record_id)

    async def page(
        self, kind: RecordKind, tenant: str, *, after: str | None, limit: int, where: Mapping[str, str]
    ) -> Sequence[Record[Any]]:
        collection = await self.part(kind, tenant)
        if collection is None:
            return ()
        found = await self._weaviate.ask(
            lambda: collection.query.fetch_objects(
                filters=condition(kind, where, after),
                sort=Sort.by_property(SORT_KEY),
                limit=limit,
                return_properties=RETURNED,
            )
        )
        return [record_of(kind, one) for one in found.objects]

    async def update(
        self, kind: RecordKind, tenant: str, record_id: str, body: Body, *, expected: str | None, version: str
    ) -> Record[Any]:
        collection = await self.part(kind, tenant)
        if collection is None:
            raise _missing(record_id)
        async with self._locks.held(tenant, kind, record_id):
            found = _there(await self.find(collection, kind, tenant, record_id), record_id)
            if found.version == version:
                return found
            _compare(found, expected)
            record = written(record_id, body, version, found)
            await self._weaviate.ask(
                lambda: collection.data.replace(
                    uuid=object_id(kind, tenant, record_id),
                    properties=properties(kind, record),
                    vector=vector_of(body),
                )
            )
            return record

    async def delete(self, kind: RecordKind, tenant: str, record_id: str, *, expected: str | None) -> None:
        collection = await self.part(kind, tenant)
        if collection is None:
            raise _missing(record_id)
        async with self._locks.held(tenant, kind, record_id):
            _compare(_there(await self.find(collection, kind, tenant, record_id), record_id), expected)
            await self._weaviate.ask(lambda: collection.data.delete_by_id(object_id(kind, tenant, record_id)))

    async def ping(self) -> None:
        await self._weaviate.ping()

    async def _insert_one(
        self, collection: Collection, kind: RecordKind, tenant: str, record: Record[Any]
    ) -> None:
        await self._weaviate.ask(
            lambda: collection.data.insert(
                properties=properties(kind, record),
                uuid=object_id(kind, tenant, record.id),
                vector=vector_of(record.body),
            )
        )

    async def find(
        self, collection: Collection, kind: RecordKind, tenant: str, record_id: str
    ) -> Record[Any] | None:
        found = await self._weaviate.ask(
            lambda: collection.query.fetch_object_by_id(
                object_id(kind, tenant, record_id), return_properties=RETURNED
            )
        )
        return record_of(kind, found) if found is not None else None

    async def part(self, kind: RecordKind, tenant: str) -> Collection | None:
        """Return the tenant's part of a collection, None where it has none yet."""
        if time.monotonic() - self._tenants.get((kind, tenant), -TENANT_KNOWN_S) >= TENANT_KNOWN_S:
            whole = self._weaviate.collection(COLLECTIONS[kind])
            if not await self._weaviate.ask(lambda: whole.tenants.exists(tenant_name(tenant))):
                return None
            self._tenants[kind, tenant] = time.monotonic()
        return self._weaviate.collection(COLLECTIONS[kind], tenant_name(tenant))

    async def part_for_writing(self, kind: RecordKind, tenant: str) -> Collection:
        """Return the tenant's part of a collection, made where it is missing."""
        collection = await self.part(kind, tenant)
        if collection is not None:
            return collection
        whole = self._weaviate.collection(COLLECTIONS[kind])
        try:
            await self._weaviate.ask(lambda: whole.tenants.create(tenant_name(tenant)))
        except Defect:
            # Refused because another process was faster? Then it is there now.
            collection = await self.part(kind, tenant)
            if collection is None:
                raise
            return collection
        self._tenants[kind, tenant] = time.monotonic()
        return self._weaviate.collection(COLLECTIONS[kind], tenant_name(tenant))


def written(record_id: str, body: Body, version: str, before: Record[Any] | None) -> Record[Any]:
    """Return the record as it is written now. before: what it replaces."""
    now_ms = time.time_ns() // 1_000_000
    created_at_ms = before.created_at_ms if before else now_ms
    return Record(id=record_id, version=version, created_at_ms=created_at_ms, updated_at_ms=now_ms, body=body)


def _there(found: Record[Any] | None, record_id: str) -> Record[Any]:
    if found is None:
        raise _missing(record_id)
    return found


def _missing(record_id: str) -> NotFound:
    return NotFound(f"there is no {record_id!r}", code="RECORD_NOT_FOUND")


def _compare(found: Record[Any], expected: str | None) -> None:
    if expected is not None and found.version != expected:
        raise Conflict(f"{found.id!r} has been written since", code="VERSION_MISMATCH")
