"""Bodies on the wire: every compressed frame decoded, size bounded, and Arrow streams joined."""

import struct
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Protocol

import lz4.frame
import zstandard

from core.adapters.embedded.clickhouse_errors import (
    CANNOT_PARSE_INPUT,
    QUERY_IS_TOO_LARGE,
    UNKNOWN_COMPRESSION_METHOD,
    refusal,
)

# Of one request, after decompression: it is held in memory until it is whole.
BODY_BYTES_MAX: Final = 512 * 1024 * 1024
# How much one call of the engine is given: many small ones cost more than the copy.
PIECE_BYTES: Final = 1024 * 1024
_ARROW_END: Final = b"\xff\xff\xff\xff\x00\x00\x00\x00"


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes | None: ...

    def decompress(self, data: bytes, /) -> bytes: ...


class _Identity:
    """What no encoding decodes to."""

    def feed(self, data: bytes) -> bytes:
        return data

    def finish(self) -> None:
        return


class _Frames:
    """Decodes concatenated frames: clients send several, and stopping after one silently loses rows."""

    def __init__(self, start: Callable[[], _Decompressor]) -> None:
        self._start = start
        self._current: _Decompressor | None = None

    def feed(self, data: bytes) -> bytes:
        decoded: list[bytes] = []
        while data:
            current = self._current or self._start()
            self._current = current
            decoded.append(current.decompress(data))
            if not current.eof:
                break
            data = current.unused_data or b""
            self._current = None
        return decoded[0] if len(decoded) == 1 else b"".join(decoded)

    def finish(self) -> None:
        if self._current is not None:
            raise refusal(
                CANNOT_PARSE_INPUT,
                "The compressed body ends in the middle of a frame",
                "CANNOT_PARSE_INPUT_ASSERTION_FAILED",
            )


def _gzip() -> _Decompressor:
    return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)


_DECODERS: Final[dict[str, Callable[[], _Identity | _Frames]]] = {
    "": _Identity,
    "identity": _Identity,
    "lz4": lambda: _Frames(lz4.frame.LZ4FrameDecompressor),
    "zstd": lambda: _Frames(lambda: zstandard.ZstdDecompressor().decompressobj()),
    "gzip": lambda: _Frames(_gzip),
    "deflate": lambda: _Frames(zlib.decompressobj),
}


async def read_body(chunks: AsyncIterator[bytes], encoding: str) -> list[bytes]:
    """Read a whole body and return it decoded, in pieces of about `PIECE_BYTES`.

    Raises:
        EngineError: an unknown encoding, a broken frame, or more than `BODY_BYTES_MAX`.
    """
    try:
        decoder = _DECODERS[encoding.strip().lower()]()
    except KeyError:
        raise refusal(
            UNKNOWN_COMPRESSION_METHOD,
            f"Unknown content encoding {encoding!r}: send lz4, zstd, gzip, deflate or none",
            "UNKNOWN_COMPRESSION_METHOD",
        ) from None
    pieces: list[bytes] = []
    gathered: list[bytes] = []
    total = waiting = 0
    async for chunk in chunks:
        decoded = _feed(decoder, chunk)
        total += len(decoded)
        waiting += len(decoded)
        if total > BODY_BYTES_MAX:
            raise refusal(QUERY_IS_TOO_LARGE, f"Body over {BODY_BYTES_MAX} bytes", "QUERY_IS_TOO_LARGE")
        gathered.append(decoded)
        if waiting >= PIECE_BYTES:
            pieces.append(b"".join(gathered))
            gathered, waiting = [], 0
    decoder.finish()
    if waiting:
        pieces.append(b"".join(gathered))
    return pieces


def _feed(decoder: _Identity | _Frames, chunk: bytes) -> bytes:
    try:
        return decoder.feed(chunk)
    except (RuntimeError, zlib.error, zstandard.ZstdError) as error:
        raise refusal(
            CANNOT_PARSE_INPUT,
            f"The compressed body is broken: {error}",
            "CANNOT_PARSE_INPUT_ASSERTION_FAILED",
        ) from error


class Encoder:
    """Compresses an answer as one frame over all its chunks."""

    def __init__(self, encoding: str) -> None:
        self.encoding = encoding
        self._header = b""
        self._compressor: Any
        if encoding == "lz4":
            self._compressor = lz4.frame.LZ4FrameCompressor()
            self._header = self._compressor.begin()
        elif encoding == "zstd":
            self._compressor = zstandard.ZstdCompressor(level=1).compressobj()
        else:
            self._compressor = zlib.compressobj(
                level=1, wbits=zlib.MAX_WBITS | (16 if encoding == "gzip" else 0)
            )

    def feed(self, data: bytes) -> bytes:
        header, self._header = self._header, b""
        return header + bytes(self._compressor.compress(data))

    def finish(self) -> bytes:
        header, self._header = self._header, b""
        return header + bytes(self._compressor.flush())

    def whole(self, parts: list[bytes]) -> bytes:
        """Compress an answer that is complete."""
        return b"".join([*(self.feed(part) for part in parts), self.finish()])


def response_encoder(accepted: str) -> Encoder | None:
    """Choose the cheapest encoding the client accepts."""
    names = {part.split(";")[0].strip().lower() for part in accepted.split(",")}
    return next((Encoder(name) for name in ("lz4", "zstd", "gzip", "deflate") if name in names), None)


class ArrowJoiner:
    """Joins the engine's Arrow streams, one per block, into the one stream a client expects."""

    def __init__(self) -> None:
        self._started = False

    def feed(self, chunk: bytes) -> bytes:
        """Drop the end mark, and the schema of every stream but the first."""
        stop = len(chunk) - len(_ARROW_END) if chunk.endswith(_ARROW_END) else len(chunk)
        start = 0
        if self._started:
            (length,) = struct.unpack_from("<i", chunk, 4)
            start = 8 + length
        self._started = True
        return chunk[start:stop]

    def finish(self) -> bytes:
        return _ARROW_END if self._started else b""
