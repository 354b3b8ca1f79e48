"""Records as Weaviate's objects, and back."""

import hashlib
import re
import uuid
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from core.adapters.weaviate.driver import DataObject, Filter
from core.model.records import SHELVES, Body, Record, RecordKind
from core.model.vectors import vector_of
from core.model.words import words_of

COLLECTIONS: Final[dict[RecordKind, str]] = {
    RecordKind.INCIDENTS: "TickgateIncidents",
    RecordKind.MARKET_WINDOWS: "TickgateMarketWindows",
}
assert set(COLLECTIONS) == {kind for kind, shelf in SHELVES.items() if shelf.keeper == "similarity"}
SORT_KEY: Final = "sort_key"
WORDS: Final = "words"
VERSION: Final = "version"
RETURNED: Final = ["record_id", VERSION, "created_at_ms", "updated_at_ms", "body"]
"""What a record is made of again; the rest is there to be searched."""
_OURS: Final = uuid.UUID("6f0a3c52-5d0b-4f0e-9a52-2f9f9f3a6a55")
_PLAIN_TENANT: Final = re.compile(r"[A-Za-z0-9_-]{1,62}")


def tenant_name(tenant: str) -> str:
    """Return what a tenant is called there: letters, digits, dashes and underscores are kept, others need a hash."""
    if _PLAIN_TENANT.fullmatch(tenant):
        return f"t-{tenant}"
    return "h-" + hashlib.blake2b(tenant.encode(), digest_size=24).hexdigest()


def object_id(kind: RecordKind, tenant: str, record_id: str) -> uuid.UUID:
    """Return the id of a record's object, the same for ever."""
    return uuid.uuid5(_OURS, "\0".join((tenant, kind, record_id)))


def sort_key(record_id: str) -> str:
    """Return a text whose order is the id's by code point. Weaviate sorts texts without regard to case."""
    return record_id.encode().hex()


def properties(kind: RecordKind, record: Record[Any]) -> dict[str, Any]:
    """Return what is stored of a record, beside its vector."""
    return {
        "record_id": record.id,
        SORT_KEY: sort_key(record.id),
        VERSION: record.version,
        "created_at_ms": record.created_at_ms,
        "updated_at_ms": record.updated_at_ms,
        "body": msgspec.json.encode(record.body).decode(),
        WORDS: " ".join(words_of(record.body)),
        **{name: getattr(record.body, name) for name in SHELVES[kind].filters},
    }


def data_object(kind: RecordKind, tenant: str, record: Record[Any]) -> Any:
    """Return a record as one object of a batch."""
    return DataObject(
        properties=properties(kind, record),
        uuid=object_id(kind, tenant, record.id),
        vector=vector_of(record.body),
    )


def record_of(kind: RecordKind, found: Any) -> Record[Any]:
    """Return the record an object was made of."""
    stored: Mapping[str, Any] = found.properties
    body: Body = msgspec.json.decode(stored["body"], type=SHELVES[kind].body)
    return Record(
        id=stored["record_id"],
        version=stored[VERSION],
        created_at_ms=int(stored["created_at_ms"]),
        updated_at_ms=int(stored["updated_at_ms"]),
        body=body,
    )


def condition(kind: RecordKind, where: Mapping[str, str], after: str | None = None) -> Any:
    """Return the filter for what a list or a search asks, None for all."""
    named = [name for name in SHELVES[kind].filters if name in where]
    conditions = [Filter.by_property(name).equal(where[name]) for name in named]
    if after is not None:
        conditions.append(Filter.by_property(SORT_KEY).greater_than(sort_key(after)))
    return Filter.all_of(conditions) if conditions else None
