"""The one codec of messages between processes: msgpack, never pickle, or whoever writes to Redis would run code."""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from core.messages.jobs import report_of


def _encode_other(value: Any) -> Any:
    if isinstance(value, BaseException):
        return msgspec.structs.asdict(report_of(value))
    raise TypeError(f"{type(value).__name__} is no message")


encode: Final[Callable[[Any], bytes]] = msgspec.msgpack.Encoder(enc_hook=_encode_other).encode
"""Encode a message; an exception becomes the report of it, so a stock arq worker can send its errors too."""

decode: Final[Callable[[bytes], Any]] = msgspec.msgpack.Decoder().decode
"""Decode into plain lists and dicts; for a known type use `msgspec.msgpack.Decoder(type)`."""
