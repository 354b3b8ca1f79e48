"""The hash chain: an event's hash covers its stream, its place, the hash before it and the event itself.

h(n) = SHA-256(0x00 | stream | n | h(n-1) | event), the variable parts each behind their length, so that no two
different histories are the same bytes. The first event follows 32 zero bytes.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

FIRST: Final = bytes(32)
"""What the first event follows."""
_LEAF: Final = b"\x00"
_encode: Final = msgspec.json.Encoder(order="sorted").encode


def canonical(event: Mapping[str, Any]) -> bytes:
    """Return the one way an event is written: JSON, keys sorted, no spaces, UTF-8.

    Its values are text, integers, booleans, null, lists and mappings. Raises: TypeError: there is a float, which has
    more than one form.
    """
    _refuse_floats(event)
    return _encode(event)


def _refuse_floats(value: Any) -> None:
    if isinstance(value, float):
        raise TypeError("an audited event holds no float: write the decimal as text")
    if isinstance(value, Mapping):
        for one in value.values():
            _refuse_floats(one)
    elif isinstance(value, list | tuple):
        for one in value:
            _refuse_floats(one)


def chained(stream: str, seq: int, previous: bytes, event: bytes) -> bytes:
    """Return the hash of the event at `seq`, from 1, behind the one whose hash is `previous`."""
    name = stream.encode()
    parts = (
        _LEAF,
        len(name).to_bytes(4, "big"),
        name,
        seq.to_bytes(8, "big"),
        previous,
        len(event).to_bytes(4, "big"),
        event,
    )
    return hashlib.sha256(b"".join(parts)).digest()
