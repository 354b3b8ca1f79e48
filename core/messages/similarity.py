"""What is asked of records that are found by what they are like."""

from typing import Annotated, Any, Final

import msgspec

from core.messages.message import Message
from core.model.records import SHELVES, RecordId, RecordKind

MATCHES_MAX: Final = 100
MATCHES_DEFAULT: Final = 10
SEARCHED: Final[tuple[RecordKind, ...]] = tuple(
    kind for kind, shelf in SHELVES.items() if shelf.keeper == "similarity"
)

SearchText = Annotated[
    str,
    msgspec.Meta(
        description="Words; those that are rarer weigh more.", max_length=1_000, pattern=r"^[^\x00]*$"
    ),
]
MatchLimit = Annotated[int, msgspec.Meta(ge=1, le=MATCHES_MAX)]
Weight = Annotated[
    float,
    msgspec.Meta(description="Of likeness against words, where both are given.", ge=0, le=1),
]


class SimilarityQuestion(Message, frozen=True, kw_only=True):
    """Records most like what is given. like: a body of the kind; id: a record whose body is taken instead, and which
    is not answered itself; text: words. where: fields to the values they must have.
    """

    text: SearchText = ""
    like: dict[str, Any] | None = None
    id: RecordId | None = None
    where: dict[str, str] = msgspec.field(default_factory=dict)
    weight: Weight = 0.5
    limit: MatchLimit = MATCHES_DEFAULT
