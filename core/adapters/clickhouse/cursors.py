"""Opaque cursors: where the last page ended, as base64url of msgpack. A cursor is data from outside: it is checked."""

import base64
import binascii
from typing import Annotated, TypeVar

import msgspec

from core.errors.exceptions import Invalid

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
UInt32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
SourceText = Annotated[str, msgspec.Meta(max_length=63)]


class TickCursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The last row of a page of ticks. seq: 64 bits without sign, which is all msgpack can carry."""

    time_msc: Int64
    source: SourceText
    epoch: UInt32
    seq: Annotated[int, msgspec.Meta(ge=0)]


class BarCursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The last bar of a page."""

    time_ms: Int64
    source: SourceText


Cursor = TypeVar("Cursor", TickCursor, BarCursor)


def write_cursor(cursor: TickCursor | BarCursor) -> str:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(cursor)).rstrip(b"=").decode()


def read_cursor(text: str, kind: type[Cursor]) -> Cursor:
    """Return what `write_cursor` was given.

    Raises:
        Invalid: it was never one of ours, or of another endpoint.
    """
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        return msgspec.msgpack.decode(data, type=kind)
    except (binascii.Error, msgspec.DecodeError, ValueError) as e:
        raise Invalid("cursor: this is no cursor of this list", code="BAD_CURSOR") from e
