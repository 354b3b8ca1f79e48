"""The wire between connector and bridge, version 1: binary WebSocket frames, little-endian.

BATCH and ACK are packed binary; every other frame is a 4-byte header and a JSON body, so that a connector
can be written in any language. docs/wire-protocol.md describes each byte, tests/unit executes its fixtures.
"""

import struct
import zlib
from enum import IntEnum, StrEnum
from typing import Annotated, Final, TypeVar

import msgspec
import numpy as np

from core.errors.exceptions import Corrupt, Invalid
from core.model.ticks import TICK_BYTES, TICK_DTYPE, UTC_OFFSET_UNKNOWN, SymbolRun, Ticks

VERSION: Final = 1
PATH: Final = "/v1/ingest"
BATCH_ROWS_MAX: Final = 100_000
FRAME_BYTES_MAX: Final = 8 * 1024 * 1024
SYMBOL_BYTES_MAX: Final = 64
RUNS_MAX: Final = 4_096
TALLIES_MAX: Final = 10_000
ORDERS_VERSION: Final = 2
"""Of the ORDER and ORDER_REPLY frames, whose bodies are `core.messages.terminal_orders`."""

_HEADER: Final = struct.Struct("<BBH")  # version, type, flags
_BATCH: Final = struct.Struct(
    "<BBHIQIiqI"
)  # header, crc32, first_seq, count, utc_offset_s, captured_at_ms, runs
_ACK: Final = struct.Struct("<BBHIQ")  # header, reserved, durable_seq
_RUN: Final = struct.Struct("<IB")  # rows, length of the symbol's UTF-8 name
_CRC_FROM: Final = 8
_BACKFILL: Final = 1


class FrameType(IntEnum):
    HELLO = 1
    RESUME = 2
    BATCH = 3
    ACK = 4
    NACK = 5
    TALLY = 6
    NOTICE = 7
    PING = 8
    PONG = 9
    ORDER = 10
    ORDER_REPLY = 11


class NackCode(StrEnum):
    """Why the bridge did not take something. One that has a close code in CLOSE_CODES ends the connection."""

    GAP = "GAP"
    BAD_CRC = "BAD_CRC"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    MALFORMED = "MALFORMED"
    VERSION_UNSUPPORTED = "VERSION_UNSUPPORTED"
    UNAUTHORIZED = "UNAUTHORIZED"
    HELLO_EXPECTED = "HELLO_EXPECTED"
    TOO_LARGE = "TOO_LARGE"
    WINDOW_EXCEEDED = "WINDOW_EXCEEDED"
    SOURCE_BUSY = "SOURCE_BUSY"
    LEASE_HELD = "LEASE_HELD"
    LEASE_LOST = "LEASE_LOST"
    SPOOL_DIVERGED = "SPOOL_DIVERGED"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    INTERNAL = "INTERNAL"
    RATE_LIMITED = "RATE_LIMITED"


CLOSE_CODES: Final[dict[NackCode, int]] = {
    NackCode.MALFORMED: 4400,
    NackCode.UNAUTHORIZED: 4401,
    NackCode.VERSION_UNSUPPORTED: 4406,
    NackCode.HELLO_EXPECTED: 4408,
    NackCode.SOURCE_BUSY: 4409,
    NackCode.LEASE_HELD: 4410,
    NackCode.LEASE_LOST: 4411,
    NackCode.SPOOL_DIVERGED: 4412,
    NackCode.TOO_LARGE: 4413,
    NackCode.WINDOW_EXCEEDED: 4429,
    NackCode.RATE_LIMITED: 4430,
    NackCode.SHUTTING_DOWN: 4503,
    NackCode.STORE_UNAVAILABLE: 4504,
    NackCode.INTERNAL: 4500,
}
"""Codes that end the connection. GAP and BAD_CRC leave it open: resend from `expected`."""


class Cursor(msgspec.Struct, frozen=True, kw_only=True):
    symbol: str
    time_msc: int
    count: int


class Hello(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """First frame of a connection.

    install: names the spool; a new one starts a new epoch.
    first_seq: the oldest seq the spool can still send; next_seq: the seq its next new tick will get.
    orders: the newest version of ORDER it carries out; 0 executes none, as connectors do that do not know the frame.
    """

    versions: Annotated[list[int], msgspec.Meta(max_length=16)]
    source: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
    install: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    token: Annotated[str, msgspec.Meta(max_length=512)]
    first_seq: Annotated[int, msgspec.Meta(ge=1, le=2**62)]
    next_seq: Annotated[int, msgspec.Meta(ge=1, le=2**62)]
    agent: Annotated[str, msgspec.Meta(max_length=200)] = ""
    orders: Annotated[int, msgspec.Meta(ge=0, le=255)] = 0


class Resume(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to HELLO: everything below `next_seq` is durable; send from there.

    cursors: per symbol, where the store stands in market time; filled when this epoch holds no tick yet, so that
        a fresh spool reads on from there instead of doubling or losing ticks.
    """

    version: int
    epoch: int
    next_seq: int
    window_rows: int
    window_frames: int
    heartbeat_ms: int
    cursors: list[Cursor] = []


class Nack(msgspec.Struct, frozen=True, kw_only=True):
    """expected: the next seq the bridge will take, where that is known. retry_ms: wait this long first."""

    code: NackCode
    message: str
    expected: int | None = None
    retry_ms: int = 0


class TallyItem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`core.model.ticks.Tally` on the wire; `checksum` is hexadecimal because JSON numbers end at 2**53."""

    symbol: str
    day: int
    rows: int
    first_seq: int
    last_seq: int
    checksum: str


class TallyFrame(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    tallies: list[TallyItem]


class NoticeCode(StrEnum):
    """What a connector has to say about its terminal."""

    HISTORY_REVISED = "HISTORY_REVISED"
    SPOOL_FULL = "SPOOL_FULL"
    SPOOL_RESUMED = "SPOOL_RESUMED"
    TERMINAL_RESTARTED = "TERMINAL_RESTARTED"
    TERMINAL_DISCONNECTED = "TERMINAL_DISCONNECTED"
    OFFSET_CHANGED = "OFFSET_CHANGED"
    EPOCH_STARTED = "EPOCH_STARTED"


class Notice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    code: NoticeCode
    at_ms: int
    symbol: str = ""
    detail: str = ""


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Consecutive ticks. rows: shape (n,), TICK_DTYPE, 1 <= n <= BATCH_ROWS_MAX; run counts add up to n."""

    first_seq: int
    rows: Ticks
    runs: tuple[SymbolRun, ...]
    utc_offset_s: int = UTC_OFFSET_UNKNOWN
    captured_at_ms: int = 0
    backfill: bool = False

    @property
    def last_seq(self) -> int:
        return self.first_seq + len(self.rows) - 1


Body = TypeVar("Body")
_encoder = msgspec.json.Encoder()


def frame_type(frame: bytes | memoryview) -> FrameType:
    """Read the header of `frame`.

    Raises:
        Invalid: too short, another version, or an unknown type.
    """
    if len(frame) < _HEADER.size:
        raise Invalid(f"frame of {len(frame)} bytes has no header", code="MALFORMED")
    version, kind, _ = _HEADER.unpack_from(frame)
    if version != VERSION:
        raise Invalid(f"frame version {version}, supported: {VERSION}", code="VERSION_UNSUPPORTED")
    try:
        return FrameType(kind)
    except ValueError as e:
        raise Invalid(f"unknown frame type {kind}", code="MALFORMED") from e


def encode_json(kind: FrameType, body: msgspec.Struct | None = None) -> bytes:
    """Header and JSON body; PING and PONG have none."""
    return _HEADER.pack(VERSION, kind, 0) + (b"" if body is None else _encoder.encode(body))


def encode_body(kind: FrameType, body: bytes) -> bytes:
    """Header and a body that is JSON already."""
    return _HEADER.pack(VERSION, kind, 0) + body


def body_of(frame: bytes) -> memoryview:
    """Return what follows the header."""
    return memoryview(frame)[_HEADER.size :]


def decode_json(frame: bytes | memoryview, body_type: type[Body]) -> Body:
    """Parse the JSON body of a control frame.

    Raises:
        Invalid: the body is not JSON of this shape.
    """
    try:
        return msgspec.json.decode(memoryview(frame)[_HEADER.size :], type=body_type)
    except msgspec.DecodeError as e:
        raise Invalid(f"{body_type.__name__}: {e}", code="MALFORMED") from e


def encode_ack(durable_seq: int) -> bytes:
    return _ACK.pack(VERSION, FrameType.ACK, 0, 0, durable_seq)


def decode_ack(frame: bytes | memoryview) -> int:
    """Return durable_seq.

    Raises:
        Invalid: wrong length.
    """
    if len(frame) != _ACK.size:
        raise Invalid(f"ACK of {len(frame)} bytes, expected {_ACK.size}", code="MALFORMED")
    return int(_ACK.unpack_from(frame)[4])


def encode_batch(batch: Batch) -> bytes:
    """Pack `batch`; the CRC covers every byte behind it.

    Raises:
        Invalid: more rows, runs or bytes than the limits allow, or runs that do not add up.
    """
    count = len(batch.rows)
    if not 1 <= count <= BATCH_ROWS_MAX or sum(run.count for run in batch.runs) != count:
        raise Invalid(
            f"a batch of {count} rows in runs of {[r.count for r in batch.runs][:8]}", code="MALFORMED"
        )
    runs = b"".join(_encode_run(run) for run in batch.runs)
    rows = batch.rows.tobytes()
    body = (
        struct.pack(
            "<QIiqI", batch.first_seq, count, batch.utc_offset_s, batch.captured_at_ms, len(batch.runs)
        )
        + runs
    )
    if len(batch.runs) > RUNS_MAX or _CRC_FROM + len(body) + len(rows) > FRAME_BYTES_MAX:
        raise Invalid(f"{len(rows)} bytes of rows in {len(batch.runs)} runs", code="TOO_LARGE")
    flags = _BACKFILL if batch.backfill else 0
    crc = zlib.crc32(rows, zlib.crc32(body))
    return b"".join((struct.pack("<BBHI", VERSION, FrameType.BATCH, flags, crc), body, rows))


def decode_batch(frame: bytes | memoryview) -> Batch:
    """Unpack a BATCH frame without copying its rows: they stay a read-only view of `frame`.

    Raises:
        Corrupt: the CRC does not match (code BAD_CRC): the sender may send it again.
        Invalid: lengths, counts or names that cannot be (code MALFORMED or TOO_LARGE).
    """
    if len(frame) < _BATCH.size:
        raise Invalid(f"BATCH of {len(frame)} bytes is shorter than its header", code="MALFORMED")
    _, _, flags, crc, first_seq, count, offset_s, captured_at_ms, run_count = _BATCH.unpack_from(frame)
    if zlib.crc32(memoryview(frame)[_CRC_FROM:]) != crc:
        raise Corrupt(f"CRC of the batch at seq {first_seq} does not match", code="BAD_CRC")
    if count > BATCH_ROWS_MAX or run_count > RUNS_MAX:
        raise Invalid(f"{count} rows in {run_count} runs", code="TOO_LARGE")
    if not count or not first_seq or first_seq + count > 2**63:
        raise Invalid(f"{count} rows from seq {first_seq}", code="MALFORMED")
    runs, rows_at = _decode_runs(frame, run_count)
    if sum(run.count for run in runs) != count or len(frame) != rows_at + count * TICK_BYTES:
        raise Invalid(f"{count} rows do not match {len(runs)} runs and {len(frame)} bytes", code="MALFORMED")
    return Batch(
        first_seq=first_seq,
        rows=np.frombuffer(frame, TICK_DTYPE, count, rows_at),
        runs=runs,
        utc_offset_s=offset_s,
        captured_at_ms=captured_at_ms,
        backfill=bool(flags & _BACKFILL),
    )


def _encode_run(run: SymbolRun) -> bytes:
    name = run.symbol.encode()
    if not 1 <= len(name) <= SYMBOL_BYTES_MAX or run.count < 1:
        raise Invalid(f"symbol {run.symbol!r} with {run.count} rows", code="MALFORMED")
    return _RUN.pack(run.count, len(name)) + name


def _decode_runs(frame: bytes | memoryview, run_count: int) -> tuple[tuple[SymbolRun, ...], int]:
    runs: list[SymbolRun] = []
    at = _BATCH.size
    for _ in range(run_count):
        if at + _RUN.size > len(frame):
            raise Invalid("the symbol table runs past the frame", code="MALFORMED")
        rows, name_bytes = _RUN.unpack_from(frame, at)
        at += _RUN.size
        name = bytes(memoryview(frame)[at : at + name_bytes])
        at += name_bytes
        if not rows or not 1 <= len(name) <= SYMBOL_BYTES_MAX or len(name) != name_bytes:
            raise Invalid(f"a run of {rows} rows named by {len(name)} bytes", code="MALFORMED")
        try:
            runs.append(SymbolRun(symbol=name.decode(), count=rows))
        except UnicodeDecodeError as e:
            raise Invalid("a symbol is not UTF-8", code="MALFORMED") from e
    return tuple(runs), at
