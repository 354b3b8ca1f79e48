"""What the double keeps: collections, their tenants, and objects; and what it refuses."""

import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TENANT = re.compile(r"[A-Za-z0-9_-]{1,64}")
COLLECTION = re.compile(r"[A-Z][_0-9A-Za-z]{0,254}")
TYPES: dict[str, type | tuple[type, ...]] = {
    "text": str,
    "int": (int, float),
    "number": (int, float),
    "boolean": bool,
}


class Refused(Exception):
    """What Weaviate answers with an error. status: of REST; gRPC knows the text alone."""

    def __init__(self, text: str, status: int = 422) -> None:
        super().__init__(text)
        self.status = status


@dataclass
class Stored:
    """An object. vector: as it was sent, None for none."""

    id: uuid.UUID
    properties: dict[str, Any]
    vector: tuple[float, ...] | None
    created_ms: int = field(default_factory=lambda: int(time.time() * 1_000))
    updated_ms: int = field(default_factory=lambda: int(time.time() * 1_000))


class Collection:
    """One collection: a shard for each tenant, or a single one named ""."""

    def __init__(self, definition: Mapping[str, Any]) -> None:
        self.definition = dict(definition)
        self.name: str = definition["class"]
        self.properties = {one["name"]: one for one in definition.get("properties", [])}
        self.with_tenants = bool(definition.get("multiTenancyConfig", {}).get("enabled"))
        self.bm25 = definition.get("invertedIndexConfig", {}).get("bm25", {"k1": 1.2, "b": 0.75})
        self.shards: dict[str, dict[uuid.UUID, Stored]] = {} if self.with_tenants else {"": {}}
        self._dimensions: int | None = None

    def shard(self, tenant: str) -> dict[uuid.UUID, Stored]:
        if self.with_tenants and not tenant:
            raise Refused(f"class {self.name} has multi-tenancy enabled, but request was without tenant")
        if tenant and not self.with_tenants:
            raise Refused(f"class {self.name} has multi-tenancy disabled, but request was with tenant")
        if tenant not in self.shards:
            raise Refused(f'tenant not found: "{tenant}"')
        return self.shards[tenant]

    def property(self, name: str) -> Mapping[str, Any]:
        if name not in self.properties:
            raise Refused(f"no such prop with name '{name}' found in class '{self.name}'")
        found: Mapping[str, Any] = self.properties[name]
        return found

    def check(self, properties: Mapping[str, Any], vector: tuple[float, ...] | None) -> None:
        for name, value in properties.items():
            (kind,) = self.property(name)["dataType"]
            if not isinstance(value, TYPES[kind]):
                raise Refused(f"invalid {kind} property '{name}' on class '{self.name}': {value!r}")
        if vector is None:
            return
        if self._dimensions not in (None, len(vector)):
            raise Refused(f"vector lengths don't match: {len(vector)} vs {self._dimensions}")
        self._dimensions = len(vector)


class Store:
    """All collections. unkeepable: objects with this text anywhere are refused, for tests of errors."""

    def __init__(self) -> None:
        self.collections: dict[str, Collection] = {}
        self.unkeepable = ""

    def collection(self, name: str) -> Collection:
        if name not in self.collections:
            raise Refused(f"could not find class {name} in schema", 404)
        return self.collections[name]

    def create(self, definition: Mapping[str, Any]) -> None:
        name = definition["class"]
        if not COLLECTION.fullmatch(name):
            raise Refused(f"'{name}' is not a valid class name")
        if name in self.collections:
            raise Refused(f"class name {name} already exists")
        for one in definition.get("properties", []):
            if one["name"] in ("id", "vector", "_id", "_additional"):
                raise Refused(f"'{one['name']}' is a reserved property name")
        self.collections[name] = Collection(definition)

    def add_tenants(self, name: str, tenants: list[str]) -> None:
        collection = self.collection(name)
        if not collection.with_tenants:
            raise Refused(f'multi-tenancy is not enabled for class "{name}"')
        for tenant in tenants:
            if not TENANT.fullmatch(tenant):
                raise Refused(f"tenant name {tenant!r} should only contain alphanumeric characters, _ and -")
        for tenant in tenants:
            collection.shards.setdefault(tenant, {})

    def insert(self, name: str, tenant: str, stored: Stored) -> None:
        """Keep a new object. Raises: Refused: its id is taken."""
        if stored.id in self.collection(name).shard(tenant):
            raise Refused(f"id '{stored.id}' already exists")
        self.put(name, tenant, stored)

    def put(self, name: str, tenant: str, stored: Stored) -> None:
        """Keep an object in place of the one that has its id."""
        collection = self.collection(name)
        shard = collection.shard(tenant)
        collection.check(stored.properties, stored.vector)
        if self.unkeepable and any(self.unkeepable in str(value) for value in stored.properties.values()):
            raise Refused("put object: shard is read-only")
        before = shard.get(stored.id)
        if before is not None:
            stored.created_ms = before.created_ms
        shard[stored.id] = stored
