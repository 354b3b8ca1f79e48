"""What is asked of records, the same for every kind."""

from typing import Annotated, Any, Final

import msgspec

from core.messages.message import Message
from core.model.records import Deed, RecordId

PAGE_MAX: Final = 1_000
PAGE_DEFAULT: Final = 100

Version = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
PageLimit = Annotated[int, msgspec.Meta(ge=1, le=PAGE_MAX)]


class RecordCreation(Message, frozen=True, kw_only=True):
    """A record to be made. body: as its kind's. version: names this write, also when it is tried again."""

    id: RecordId
    body: dict[str, Any]
    version: Version


class RecordQuestion(Message, frozen=True, kw_only=True):
    """One record."""

    id: RecordId


class RecordPageQuestion(Message, frozen=True, kw_only=True):
    """Records in the order of their ids. where: fields to the values they must have."""

    after: RecordId | None = None
    limit: PageLimit = PAGE_DEFAULT
    where: dict[str, str] = msgspec.field(default_factory=dict)


class RecordUpdate(RecordCreation, frozen=True, kw_only=True):
    """A record's new body. expected: the version it must still have; None for any."""

    expected: str | None = None


class RecordDeletion(RecordQuestion, frozen=True, kw_only=True):
    """A record to be forgotten. expected: as of an update."""

    expected: str | None = None


REQUESTS: Final[dict[Deed, type[Message]]] = {
    Deed.CREATE: RecordCreation,
    Deed.READ: RecordQuestion,
    Deed.PAGE: RecordPageQuestion,
    Deed.UPDATE: RecordUpdate,
    Deed.DELETE: RecordDeletion,
}
assert set(REQUESTS) == set(Deed), "everything that is done to records has its request"
