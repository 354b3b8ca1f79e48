"""The shapes of records on the wire, made from their bodies."""

from dataclasses import dataclass
from typing import Annotated, Any, Final, cast

import msgspec

from core.messages.message import Message
from core.messages.records import PAGE_DEFAULT, PageLimit
from core.model.records import SHELVES, Body, RecordId, RecordKind
from gateway import answers
from gateway.order_shapes import StandingAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapes:
    """Of one kind."""

    wish: type[Body]
    record: type[msgspec.Struct]
    page: type[msgspec.Struct]
    query: type[Message]


_BESIDE: Final[dict[RecordKind, tuple[tuple[str, Any, Any], ...]]] = {
    # Told of the one that is read, not of each in a list.
    RecordKind.ACCOUNTS: (("standing", StandingAnswer | msgspec.UnsetType, msgspec.UNSET),),
}


def _shapes(kind: RecordKind) -> Shapes:
    body = SHELVES[kind].body
    name, text = body.__name__, (body.__doc__ or "").partition("\n")[0]
    record = msgspec.defstruct(
        f"{name}Record",
        [
            ("id", RecordId),
            ("version", Annotated[str, msgspec.Meta(description="What If-Match names; also the ETag.")]),
            ("created_at_ms", answers.EpochMs),
            ("updated_at_ms", answers.EpochMs),
            *_BESIDE.get(kind, ()),
        ],
        bases=(body,),
        kw_only=True,
        namespace={"__doc__": text},
    )
    return Shapes(
        wish=_wish(body, name, text),
        record=record,
        page=msgspec.defstruct(
            f"{name}Page",
            [("items", list[record]), ("next_cursor", answers.NextCursor)],  # type: ignore[valid-type]
            kw_only=True,
            namespace={"__doc__": f"A page of {kind}, in the order of their ids."},
        ),
        query=_query(kind, name),
    )


def _wish(body: type[Body], name: str, text: str) -> type[Body]:
    wish: Any = msgspec.defstruct(
        f"New{name}",
        [("id", RecordId | msgspec.UnsetType, msgspec.UNSET)],
        bases=(body,),
        frozen=True,
        kw_only=True,
        namespace={"__doc__": f"{text} Without an id it is given one."},
    )
    return cast(type[Body], wish)


def _query(kind: RecordKind, name: str) -> type[Message]:
    query: Any = msgspec.defstruct(
        f"{name}Query",
        [
            ("cursor", RecordId | None, None),
            ("limit", PageLimit, PAGE_DEFAULT),
            *((field, answers.FilterText | None, None) for field in SHELVES[kind].filters),
        ],
        bases=(Message,),
        frozen=True,
        kw_only=True,
        namespace={"__doc__": f"One page of {kind}."},
    )
    return cast(type[Message], query)


SHAPES: Final = {kind: _shapes(kind) for kind in SHELVES}
MARK_PAGE: Final = msgspec.defstruct(
    "MarkPage",
    [("items", list[SHAPES[RecordKind.ANNOTATIONS].record]), ("next_cursor", answers.NextCursor)],  # type: ignore[misc]
    kw_only=True,
    namespace={"__doc__": "A page of annotations, in the order of (start_ms, id)."},
)
