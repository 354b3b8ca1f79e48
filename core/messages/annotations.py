"""What is asked of annotations beyond what is asked of every record."""

from typing import Annotated

import msgspec

from core.messages.message import Message
from core.messages.records import PAGE_DEFAULT, PageLimit
from core.model.records import ID_PATTERN

MarkCursor = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,15}\." + ID_PATTERN.removeprefix("^"))]


class MarkQuery(Message, frozen=True, kw_only=True):
    """Annotations that touch a stretch of a symbol's time, in the order of (start_ms, id)."""

    symbol: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    start_ms: int | None = None
    stop_ms: int | None = None
    cursor: MarkCursor | None = None
    limit: PageLimit = PAGE_DEFAULT


def mark_cursor(start_ms: int, record_id: str) -> str:
    """Return where a page ended."""
    return f"{start_ms}.{record_id}"


def after_cursor(cursor: str) -> tuple[int, str]:
    """Return the start_ms and id of a `MarkCursor`."""
    start_ms, _, record_id = cursor.partition(".")
    return int(start_ms), record_id
