"""Services and flows as documents. A version is compared and the document written by one statement; what two
documents must agree on is done in a transaction that has both collections to itself.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from arango.database import Database, StandardDatabase
from arango.exceptions import AQLQueryExecuteError, ArangoServerError

from core.adapters.arango.client import RETRIED, Arango
from core.adapters.arango.documents import (
    COLLECTIONS,
    FLOWS,
    SERVICES,
    Document,
    changes_of,
    document_of,
    key_of,
    now_ms,
    order_of,
    record_of,
    vertex_of,
)
from core.errors.exceptions import Conflict, NotFound
from core.model.records import SHELVES, Body, Flow, Record, RecordKind, Service

Result = TypeVar("Result")
TRIES: Final = 5
"""Of a transaction that met another's; one that was not committed has done nothing."""
LOCK_TIMEOUT_S: Final = 5
BATCH_ROWS: Final = 1_000
QUERY_RUNTIME_S_MAX: Final = 8.0
"""Then the server stops it: it would not notice that nobody waits for it any more."""
LOADED_ROWS: Final = 500
UNIQUE: Final = 1210

_READ: Final = "FOR d IN @@kind FILTER d._key == @key AND d.tenant == @tenant RETURN d"
_INSERT: Final = "INSERT @document INTO @@kind RETURN NEW"
_MATCHING: Final = (
    "FOR d IN @@kind FILTER d._key == @key AND d.tenant == @tenant"
    " AND (@expected == null OR d.version == @expected)"
)
_UPDATE: Final = f"{_MATCHING} UPDATE d WITH @changes IN @@kind RETURN NEW"
_REMOVE: Final = f"{_MATCHING} REMOVE d IN @@kind RETURN OLD"
_THERE: Final = f"FOR s IN {SERVICES} FILTER s.tenant == @tenant AND s._id IN @ends RETURN s._id"
_IN_USE: Final = (
    f"FOR f IN {FLOWS} FILTER f.tenant == @tenant AND (f._from == @service OR f._to == @service)"
    " LIMIT 1 RETURN f._key"
)
_UPSERT: Final = (
    "FOR document IN @documents UPSERT {_key: document._key} INSERT document"
    ' UPDATE UNSET(document, "created_at_ms") IN @@kind'
)


class ArangoRecords:
    """The `Records` port on ArangoDB, for services and flows."""

    def __init__(self, arango: Arango) -> None:
        self._arango = arango

    async def create(
        self, kind: RecordKind, tenant: str, record_id: str, body: Body, *, version: str
    ) -> Record[Any]:
        document = document_of(tenant, record_id, body, version, now_ms())

        def insert(database: Database) -> Any:
            _require_ends(database, tenant, _ends(tenant, [body]))
            try:
                return one(database, _INSERT, {"document": document, "@kind": COLLECTIONS[kind]})
            except AQLQueryExecuteError as e:
                if e.error_code != UNIQUE:
                    raise
                raise Conflict(f"{record_id!r} is there already", code="RECORD_EXISTS") from e

        try:
            made = await self._write(insert)
        except Conflict:
            made = await self._document(kind, tenant, record_id)
            if made["version"] != version:
                raise
        return record_of(kind, made)

    async def read(self, kind: RecordKind, tenant: str, record_id: str) -> Record[Any]:
        return record_of(kind, await self._document(kind, tenant, record_id))

    async def page(
        self, kind: RecordKind, tenant: str, *, after: str | None, limit: int, where: Mapping[str, str]
    ) -> Sequence[Record[Any]]:
        # Attribute names come from the shelf's own list, never from a caller.
        names = [name for name in SHELVES[kind].filters if name in where]
        filters = "".join(f" AND d.`{name}` == @{name}" for name in names)
        query = (
            "FOR d IN @@kind FILTER d.tenant == @tenant AND d.order > @after"
            f"{filters} SORT d.order LIMIT @limit RETURN d"
        )
        bound = {
            "@kind": COLLECTIONS[kind],
            "tenant": tenant,
            "after": order_of(after) if after is not None else "",
            "limit": limit,
            **{name: where[name] for name in names},
        }
        found = await self._arango.ask(lambda database: rows(database, query, bound))
        return [record_of(kind, document) for document in found]

    async def update(
        self, kind: RecordKind, tenant: str, record_id: str, body: Body, *, expected: str | None, version: str
    ) -> Record[Any]:
        bound = {
            **_named(kind, tenant, record_id),
            "expected": expected,
            "changes": changes_of(tenant, body, version, now_ms()),
        }

        def change(database: Database) -> Any:
            _require_ends(database, tenant, _ends(tenant, [body]))
            return one(database, _UPDATE, bound)

        changed = await self._write(change)
        if changed is None:
            changed = await self._document(kind, tenant, record_id)
            if changed["version"] != version:
                raise _mismatch(record_id)
        return record_of(kind, changed)

    async def delete(self, kind: RecordKind, tenant: str, record_id: str, *, expected: str | None) -> None:
        def remove(database: Database) -> Any:
            if kind is RecordKind.SERVICES:
                ends = {"tenant": tenant, "service": vertex_of(tenant, record_id)}
                if one(database, _IN_USE, ends) is not None:
                    raise Conflict(f"flows lead to or from {record_id!r}", code="RECORD_IN_USE")
            return one(database, _REMOVE, {**_named(kind, tenant, record_id), "expected": expected})

        if await self._write(remove) is None:
            await self._document(kind, tenant, record_id)
            raise _mismatch(record_id)

    async def load(
        self, tenant: str, services: Mapping[str, Service], flows: Mapping[str, Flow], *, version: str
    ) -> None:
        at_ms = now_ms()

        def keep(database: Database) -> None:
            for name, bodies in ((SERVICES, services), (FLOWS, flows)):
                documents = [
                    document_of(tenant, record_id, body, version, at_ms) for record_id, body in bodies.items()
                ]
                for start in range(0, len(documents), LOADED_ROWS):
                    batch = documents[start : start + LOADED_ROWS]
                    rows(database, _UPSERT, {"documents": batch, "@kind": name})
            _require_ends(database, tenant, _ends(tenant, flows.values()))

        await self._write(keep)

    async def _document(self, kind: RecordKind, tenant: str, record_id: str) -> Document:
        bound = _named(kind, tenant, record_id)
        found: Document | None = await self._arango.ask(lambda database: one(database, _READ, bound))
        if found is None:
            raise NotFound(f"there is no {record_id!r}", code="RECORD_NOT_FOUND")
        return found

    async def _write(self, deed: Callable[[Database], Result]) -> Result:
        return await self._arango.ask(lambda database: _alone(database, deed))


def _alone(database: StandardDatabase, deed: Callable[[Database], Result]) -> Result:
    """Do it while nobody else writes services or flows, all of it or nothing, again where that could not be had."""
    for attempt in range(1, TRIES + 1):
        try:
            return _in_transaction(database, deed)
        except ArangoServerError as e:
            if e.error_code not in RETRIED or attempt == TRIES:
                raise
    raise AssertionError("the last try returns or raises")


def _in_transaction(database: StandardDatabase, deed: Callable[[Database], Result]) -> Result:
    transaction = database.begin_transaction(exclusive=[SERVICES, FLOWS], lock_timeout=LOCK_TIMEOUT_S)
    try:
        done = deed(transaction)
    except BaseException:
        transaction.abort_transaction()
        raise
    transaction.commit_transaction()
    return done


def rows(database: Database, query: str, bound: Mapping[str, Any]) -> list[Any]:
    """Return all that a query answers."""
    cursor: Any = database.aql.execute(
        query,
        bind_vars=dict(bound),
        batch_size=BATCH_ROWS,
        max_runtime=QUERY_RUNTIME_S_MAX,  # type: ignore[arg-type]
    )
    return list(cursor)


def one(database: Database, query: str, bound: Mapping[str, Any]) -> Any:
    """Return the first of what a query answers, None where that is nothing."""
    found = rows(database, query, bound)
    return found[0] if found else None


def _named(kind: RecordKind, tenant: str, record_id: str) -> dict[str, Any]:
    return {"@kind": COLLECTIONS[kind], "key": key_of(tenant, record_id), "tenant": tenant}


def _ends(tenant: str, bodies: Iterable[Body]) -> set[str]:
    flows = [body for body in bodies if isinstance(body, Flow)]
    return {vertex_of(tenant, end) for flow in flows for end in (flow.origin, flow.target)}


def _require_ends(database: Database, tenant: str, ends: set[str]) -> None:
    if ends and set(rows(database, _THERE, {"tenant": tenant, "ends": sorted(ends)})) != ends:
        raise NotFound("a flow leads from and to services that are there", code="SERVICE_NOT_FOUND")


def _mismatch(record_id: str) -> Conflict:
    return Conflict(f"{record_id!r} has been written since", code="VERSION_MISMATCH")
