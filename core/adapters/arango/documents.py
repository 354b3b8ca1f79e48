"""Records as documents: their keys, and what lies in them.

A key is a hash of tenant and id, because ArangoDB's keys may hold fewer characters than our ids. `order` is the id in
hexadecimal: ArangoDB sorts text by a language's rules, and hexadecimal digits come in the same order by any.
"""

import hashlib
import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from core.model.records import SHELVES, Body, Flow, Record, RecordKind

SERVICES: Final = "services"
FLOWS: Final = "flows"
GRAPH: Final = "topology"
COLLECTIONS: Final[Mapping[RecordKind, str]] = {RecordKind.SERVICES: SERVICES, RecordKind.FLOWS: FLOWS}

Document = dict[str, Any]


def key_of(tenant: str, record_id: str) -> str:
    """Return the document's key, which nobody else's record has."""
    name = f"{len(tenant)}:{tenant}{record_id}"
    return hashlib.blake2b(name.encode(), digest_size=16).hexdigest()


def vertex_of(tenant: str, service: str) -> str:
    """Return what a flow's end is called."""
    return f"{SERVICES}/{key_of(tenant, service)}"


def order_of(record_id: str) -> str:
    """Return what sorts as the id does by code point."""
    return record_id.encode().hex()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def document_of(tenant: str, record_id: str, body: Body, version: str, at_ms: int) -> Document:
    """Return a new record's document."""
    return {
        "_key": key_of(tenant, record_id),
        "tenant": tenant,
        "id": record_id,
        "order": order_of(record_id),
        "created_at_ms": at_ms,
        **changes_of(tenant, body, version, at_ms),
    }


def changes_of(tenant: str, body: Body, version: str, at_ms: int) -> Document:
    """Return what an update writes of a record."""
    ends: Document = {}
    if isinstance(body, Flow):
        ends = {"_from": vertex_of(tenant, body.origin), "_to": vertex_of(tenant, body.target)}
    return {**ends, "version": version, "updated_at_ms": at_ms, **msgspec.structs.asdict(body)}


def record_of(kind: RecordKind, document: Document) -> Record[Any]:
    body = SHELVES[kind].body
    fields = {field.name: document[field.name] for field in msgspec.structs.fields(body)}
    return Record(
        id=document["id"],
        version=document["version"],
        created_at_ms=document["created_at_ms"],
        updated_at_ms=document["updated_at_ms"],
        body=body(**fields),
    )
