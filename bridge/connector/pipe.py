"""What connector and terminal process say to each other over a pipe: length-prefixed msgpack, no pickle."""

import struct
from collections.abc import Callable
from typing import Any, Final

import msgspec
import numpy as np

from bridge.connector.terminal import AccountInfo, Quote, SymbolInfo, TerminalInfo, Traits
from bridge.connector.trades import CheckResult, MadeDeal, OpenPosition, PlacedOrder, SendResult
from core.errors.exceptions import Corrupt
from core.model.ticks import TICK_DTYPE, Ticks

LENGTH: Final = struct.Struct("<I")
MESSAGE_BYTES_MAX: Final = 1024**3
"""More than the largest page: 2**21 rows of 60 bytes."""


class Open(msgspec.Struct, frozen=True, kw_only=True):
    """First message to the child: which adapter, built how. It holds passwords, so it travels in no argument list."""

    adapter: str
    options: dict[str, Any]
    directory: str


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """valid_until_ms: from then on, UTC epoch ms, the call is not begun; 0 has no end."""

    name: str
    arguments: list[Any] = []
    named: dict[str, Any] = {}
    valid_until_ms: int = 0


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """value: msgpack of the result, or packed tick rows. code and text: `last_error` when the result is None.

    raised: category code of an error that was raised instead; its text is in `text`. late: it was not begun.
    """

    value: bytes | None = None
    code: int = 1
    text: str = ""
    raised: str = ""
    late: bool = False


_encoder = msgspec.msgpack.Encoder()


def _value(kind: Any) -> Callable[[bytes], Any]:
    return msgspec.msgpack.Decoder(kind).decode


def _ticks(value: bytes) -> Ticks:
    return np.frombuffer(value, TICK_DTYPE)


RESULTS: Final[dict[str, Callable[[bytes], Any]]] = {
    # Everything that may be called, and how its result is read.
    "traits": _value(Traits),
    "terminal_info": _value(TerminalInfo),
    "account_info": _value(AccountInfo),
    "symbols_get": _value(tuple[SymbolInfo, ...]),
    "symbol_info": _value(SymbolInfo),
    "symbol_info_tick": _value(Quote),
    "symbol_select": _value(bool),
    "copy_ticks_from": _ticks,
    "copy_ticks_range": _ticks,
    "order_check": _value(CheckResult),
    "order_send": _value(SendResult),
    "orders_get": _value(tuple[PlacedOrder, ...]),
    "positions_get": _value(tuple[OpenPosition, ...]),
    "history_orders_get": _value(tuple[PlacedOrder, ...]),
    "history_deals_get": _value(tuple[MadeDeal, ...]),
    "finished": _value(bool),
}


def pack(message: msgspec.Struct) -> bytes:
    """Return one message with its length in front."""
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body


def body_length(prefix: bytes) -> int:
    """Return how many bytes follow. Raises: Corrupt."""
    length = int(LENGTH.unpack(prefix)[0])
    if length > MESSAGE_BYTES_MAX:
        raise Corrupt(f"a message of {length} bytes on the terminal's pipe", code="BAD_PIPE")
    return length


def pack_result(result: Any) -> bytes:
    """Pack what an adapter returned; tick rows as they lie in memory."""
    if isinstance(result, np.ndarray):
        return np.ascontiguousarray(result, TICK_DTYPE).tobytes()
    return _encoder.encode(result)
