"""A part of a backup as a file: framed pieces, compressed, sealed where there is a key, and hashed as they are stored.

A frame is `rows (4) | length (4) | piece`, big-endian; one with all bits set in both ends the part, so that a part that
was cut off at any place is noticed even where it is not sealed.
"""

import asyncio
import hashlib
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from typing import Any, BinaryIO, Final, cast

import zstandard

from core.errors.exceptions import Corrupt, Unavailable
from core.infrastructure.backups.manifest import Part
from core.infrastructure.backups.sealing import SealedReader, SealedWriter, exactly

LEVEL: Final = 3
HEAD: Final = struct.Struct(">II")
END: Final = HEAD.pack(0xFFFF_FFFF, 0xFFFF_FFFF)
PIECE_BYTES_MAX: Final = 1024**3
WRITE_BYTES: Final = 1024**2
READ_BYTES: Final = 1024**2


class PartWriter:
    """Takes the pieces of one part."""

    def __init__(self, raw: BinaryIO, key: bytes | None, name: str) -> None:
        self._raw = raw
        self._digest = hashlib.sha256()
        self._stored = 0
        self._name = name
        self._rows = 0
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._seal = SealedWriter(cast("BinaryIO", self), key, name) if key is not None else None
        self._compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compressobj()

    async def put(self, piece: bytes, rows: int) -> None:
        """Take one piece; what has gathered is compressed and written in a thread."""
        if len(piece) > PIECE_BYTES_MAX:
            raise Unavailable(f"one piece of {self._name} is too large", code="BACKUP_PIECE_TOO_LARGE")
        self._rows += rows
        self._waiting += (HEAD.pack(rows, len(piece)), piece)
        self._waiting_bytes += len(piece)
        if self._waiting_bytes >= WRITE_BYTES:
            await asyncio.to_thread(self._write_waiting)

    async def finish(self) -> Part:
        """Write the end, and say what the part is."""
        self._waiting.append(END)
        await asyncio.to_thread(self._finish)
        return Part(name=self._name, rows=self._rows, bytes=self._stored, sha256=self._digest.hexdigest())

    def write(self, data: bytes) -> int:
        """Store bytes as they are: what the seal writes to."""
        self._digest.update(data)
        self._stored += len(data)
        with _told(self._name):
            self._raw.write(data)
        return len(data)

    def _write_waiting(self) -> None:
        for data in self._waiting:
            self._out(self._compressor.compress(data))
        self._waiting, self._waiting_bytes = [], 0

    def _finish(self) -> None:
        self._write_waiting()
        self._out(self._compressor.flush())
        if self._seal is not None:
            self._seal.finish()

    def _out(self, data: bytes) -> None:
        if data:
            (self._seal or self).write(data)


class _Hashing:
    """Hashes what is read through it."""

    def __init__(self, raw: BinaryIO, name: str) -> None:
        self._raw = raw
        self._name = name
        self.digest = hashlib.sha256()
        self.bytes = 0

    def read(self, size: int = -1) -> bytes:
        with _told(self._name):
            data = self._raw.read(size)
        self.digest.update(data)
        self.bytes += len(data)
        return data


def pieces_of(raw: BinaryIO, key: bytes | None, part: Part) -> Iterator[tuple[bytes, int]]:
    """Yield every piece and its rows, each read exactly once.

    Raises:
        Corrupt: it is not the part of the manifest; noticed at its end at the latest. Unavailable: it cannot be read.
    """
    hashing = _Hashing(raw, part.name)
    source: Any = SealedReader(cast("BinaryIO", hashing), key, part.name) if key is not None else hashing
    rows = 0
    try:
        with closing(zstandard.ZstdDecompressor().stream_reader(source, read_size=READ_BYTES)) as plain:
            while (head := exactly(cast("BinaryIO", plain), HEAD.size)) != END:
                count, length = HEAD.unpack(head) if len(head) == HEAD.size else (0, PIECE_BYTES_MAX + 1)
                piece = exactly(cast("BinaryIO", plain), length) if length <= PIECE_BYTES_MAX else b""
                if length > PIECE_BYTES_MAX or len(piece) < length:
                    raise _damaged(part)
                rows += count
                yield piece, count
            if plain.read(1):
                raise _damaged(part)
    except zstandard.ZstdError as e:
        raise _damaged(part) from e
    while hashing.read(READ_BYTES):
        pass
    found = (rows, hashing.bytes, hashing.digest.hexdigest())
    if found != (part.rows, part.bytes, part.sha256):
        raise _damaged(part)


async def read_part(raw: BinaryIO, key: bytes | None, part: Part) -> AsyncIterator[bytes]:
    """Yield every piece; the work is done in threads. Raises as `pieces_of` does."""
    pieces = pieces_of(raw, key, part)
    while (found := await asyncio.to_thread(next, pieces, None)) is not None:
        yield found[0]


def _damaged(part: Part) -> Corrupt:
    return Corrupt(f"{part.name} is damaged or cut off", code="BACKUP_DAMAGED")


@contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise Unavailable(
            f"{name} cannot be written or read: {e.strerror or e}", code="BACKUP_PLACE", detail=repr(e)[:300]
        ) from e
