"""The routes of records: five rows for every kind, and one more for those that are found by what they are like."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from core.messages.message import Message
from core.model.records import SHELVES, RecordKind
from gateway import records, similarity, topology
from gateway.contents import LATER, refused
from gateway.parameters import NoParameters
from gateway.record_shapes import SHAPES
from gateway.routing import Content, Endpoint, Handler, RateClass
from gateway.similarity import SEARCHES

BODY_BYTES_MAX: Final = 64 * 1024
DEADLINE_S: Final = 15.0


_GONE: Final = refused("There is no such record.")
_REFUSED: Final = refused(
    "What it depends on, or what depends on it, is in the way; or the job was cancelled."
)


def _endpoints_of(kind: RecordKind) -> Sequence[Endpoint]:
    shelf, shapes = SHELVES[kind], SHAPES[kind]
    record = Content(description="The record.", schema=shapes.record, headers=("ETag",))
    common: dict[str, Any] = {"deadline_s": DEADLINE_S}
    reading = {**common, "access": shelf.read, "rate": RateClass.READ}
    writing = {**common, "access": shelf.write, "rate": RateClass.WRITE}
    made = Content(description="The record.", schema=shapes.record, headers=("ETag", "Location"))
    page = Content(description="A page.", schema=shapes.page, headers=("Link", "X-Next-Cursor"))
    same = Content(description="It still is what If-None-Match names.", types=(), headers=("ETag",))
    one = f"/v1/{kind}/{{id}}"
    return (
        Endpoint(
            method="POST",
            path=f"/v1/{kind}",
            handler=_named(records.create(kind), kind, "create", "Make a record."),
            query=NoParameters,
            body=Content(description="What to keep.", schema=shapes.wish),
            body_bytes_max=BODY_BYTES_MAX,
            idempotent=True,
            answers={201: made, 202: LATER, 404: refused("What it names is not there."), 409: _REFUSED},
            **writing,
        ),
        Endpoint(
            method="GET",
            path=f"/v1/{kind}",
            handler=_named(records.listed(kind), kind, "list", "List records, in the order of their ids."),
            query=shapes.query,
            answers={200: page, 202: LATER, 409: _REFUSED},
            **reading,
        ),
        Endpoint(
            method="GET",
            path=one,
            handler=_named(records.read(kind), kind, "read", "Show a record."),
            query=NoParameters,
            headers=("If-None-Match",),
            answers={200: record, 202: LATER, 304: same, 404: _GONE, 409: _REFUSED},
            **reading,
        ),
        Endpoint(
            method="PUT",
            path=one,
            handler=_named(
                records.update(kind), kind, "update", "Replace a record that has not changed since."
            ),
            query=NoParameters,
            body=Content(description="All of it.", schema=shelf.body),
            body_bytes_max=BODY_BYTES_MAX,
            headers=("If-Match",),
            answers={200: record, 202: LATER, 404: _GONE, 409: _REFUSED},
            **writing,
        ),
        Endpoint(
            method="DELETE",
            path=one,
            handler=_named(
                records.delete(kind), kind, "delete", "Delete a record that has not changed since."
            ),
            query=NoParameters,
            headers=("If-Match",),
            answers={
                202: LATER,
                204: Content(description="It is gone.", types=()),
                404: _GONE,
                409: _REFUSED,
            },
            **writing,
        ),
    )


def _search_of(kind: RecordKind) -> Endpoint:
    shapes = SEARCHES[kind]
    return Endpoint(
        method="POST",
        path=f"/v1/{kind}/search",
        handler=_named(
            similarity.search(kind), kind, "search", "Find the records most like a body or words."
        ),
        access=SHELVES[kind].read,
        rate=RateClass.READ,
        query=NoParameters,
        deadline_s=DEADLINE_S,
        body=Content(description="What to look for.", schema=shapes.question),
        body_bytes_max=BODY_BYTES_MAX,
        answers={
            200: Content(description="What was found.", schema=shapes.answer),
            202: LATER,
            404: refused("There is no record of this id."),
            409: _REFUSED,
        },
    )


def _question_of(name: str, handler: Handler, query: type[Message], answer: type[msgspec.Struct]) -> Endpoint:
    return Endpoint(
        method="GET",
        path=f"/v1/services/{{id}}/{name}",
        handler=handler,
        access=SHELVES[RecordKind.SERVICES].read,
        rate=RateClass.READ,
        query=query,
        deadline_s=DEADLINE_S,
        answers={
            200: Content(description="The answer.", schema=answer),
            202: LATER,
            404: refused("There is no such service."),
            409: _REFUSED,
        },
    )


def _named(handler: Handler, kind: RecordKind, deed: str, summary: str) -> Handler:
    handler.__name__ = f"{deed}_{kind.replace('-', '_')}"
    handler.__doc__ = f"{summary[:-1].replace('a record', f'one of the {kind}').replace('records', kind)}."
    return handler


ENDPOINTS: Final = (
    _question_of("downstream", topology.downstream, topology.DepthQuery, topology.ReachedServices),
    _question_of("upstream", topology.upstream, topology.DepthQuery, topology.ReachedServices),
    _question_of("path", topology.path, topology.PathQuery, topology.ServicePath),
    _question_of("impact", topology.impact, NoParameters, topology.ServiceImpact),
    *(_search_of(kind) for kind in SEARCHES),
    *(endpoint for kind in SHELVES for endpoint in _endpoints_of(kind)),
)
