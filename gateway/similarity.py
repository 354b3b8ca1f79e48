"""Search among records that are found by what they are like. A POST that only reads: its question is a body."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
from starlette.responses import Response

from core.errors.exceptions import Invalid
from core.messages.similarity import (
    MATCHES_DEFAULT,
    SEARCHED,
    MatchLimit,
    SearchText,
    SimilarityQuestion,
    Weight,
)
from core.model.records import SHELVES, RecordId, RecordKind
from gateway import answers
from gateway.asking import answered
from gateway.bodies import parse_json
from gateway.parameters import NoParameters, parse
from gateway.record_shapes import SHAPES
from gateway.routing import Call

Score = Annotated[
    float,
    msgspec.Meta(
        description="1 at most, 0 for nothing in common; comparable within one answer only.", ge=0, le=1
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchShapes:
    """Of one kind, on the wire."""

    question: type[msgspec.Struct]
    answer: type[msgspec.Struct]


def _shapes(kind: RecordKind) -> SearchShapes:
    shelf, name = SHELVES[kind], SHELVES[kind].body.__name__
    filters = msgspec.defstruct(
        f"{name}Filters",
        [(field, answers.FilterText | None, None) for field in shelf.filters],
        frozen=True,
        kw_only=True,
        forbid_unknown_fields=True,
        namespace={"__doc__": "Fields to the values they must have."},
    )
    question = msgspec.defstruct(
        f"{name}Search",
        [
            ("text", SearchText, ""),
            ("like", shelf.body | RecordId | None, None),
            ("filters", filters, filters()),
            ("weight", Weight, 0.5),
            ("limit", MatchLimit, MATCHES_DEFAULT),
        ],
        frozen=True,
        kw_only=True,
        forbid_unknown_fields=True,
        namespace={
            "__doc__": f"What is looked for among {kind}: words, the like of a body or of the record of an id, or both."
        },
    )
    match = msgspec.defstruct(
        f"{name}Match",
        [("score", Score)],
        bases=(SHAPES[kind].record,),
        kw_only=True,
        namespace={"__doc__": "A record that was found."},
    )
    answer = msgspec.defstruct(
        f"{name}Matches",
        [("items", list[match]), ("next_cursor", answers.NextCursor)],  # type: ignore[valid-type]
        kw_only=True,
        namespace={"__doc__": f"The {kind} most like it, the best first; there is no further page."},
    )
    return SearchShapes(question=question, answer=answer)


SEARCHES: Final = {kind: _shapes(kind) for kind in SEARCHED}


def search(kind: RecordKind) -> Callable[[Call], Awaitable[Response]]:
    async def search(call: Call) -> Response:
        parse(call.request, NoParameters)
        asked = _question(parse_json(call, SEARCHES[kind].question))
        return await answered(call, f"{kind}.search", asked)

    return search


def _question(wish: Any) -> SimilarityQuestion:
    if wish.like is None and not wish.text.strip():
        raise Invalid("say what to look for: `text`, `like` or both", code="SEARCH_EMPTY")
    named, given = isinstance(wish.like, str), msgspec.structs.asdict(wish.filters)
    return SimilarityQuestion(
        text=wish.text,
        like=None if named or wish.like is None else msgspec.structs.asdict(wish.like),
        id=wish.like if named else None,
        where={field: value for field, value in given.items() if value is not None},
        weight=wish.weight,
        limit=wish.limit,
    )
