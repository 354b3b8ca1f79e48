"""Answers kept in this process, as many bytes as may be, and how one is written for Redis."""

import zlib
from collections import OrderedDict, deque
from typing import Final

import msgspec

from core.messages.jobs import Answer
from core.model.freshness import Reach, Stamp
from core.telemetry import metrics

COMPRESSED_BYTES_MIN: Final = 4_096
COMPRESSION_LEVEL: Final = 1
ENTRY_BYTES: Final = 1_024
"""What an entry weighs beside its body, roughly."""
_PLAIN: Final = b"p"
_COMPRESSED: Final = b"z"


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, what it follows from, and what was known before it was loaded."""

    stamp: Stamp
    reach: Reach
    answer: Answer

    @property
    def size_bytes(self) -> int:
        return len(self.answer.body) + ENTRY_BYTES


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Kept).decode


def written(kept: Kept) -> bytes:
    """Write an entry, compressed where that is worth it."""
    plain = _encode(kept)
    if len(plain) < COMPRESSED_BYTES_MIN:
        return _PLAIN + plain
    return _COMPRESSED + zlib.compress(plain, COMPRESSION_LEVEL)


def read(text: bytes, bytes_max: int) -> Kept | None:
    """Return what `written` was given; None for what is none of ours or larger than that."""
    plain = text[1:]
    try:
        if text[:1] == _COMPRESSED:
            inflating = zlib.decompressobj()
            plain = inflating.decompress(plain, bytes_max)
            if not inflating.eof:
                return None
        return _decode(plain)
    except (zlib.error, msgspec.DecodeError):
        return None


class LocalAnswers:
    """The answers this process used last."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: str) -> Kept | None:
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
        return kept

    def put(self, key: str, kept: Kept) -> None:
        self.drop(key)
        self._kept[key] = kept
        self._bytes += kept.size_bytes
        while self._bytes > self._bytes_max:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= oldest.size_bytes
        metrics.CACHE_LOCAL_BYTES.set(self._bytes)

    def drop(self, key: str) -> None:
        if (kept := self._kept.pop(key, None)) is not None:
            self._bytes -= kept.size_bytes


class Budget:
    """Bounds what is put into Redis: so many bytes within the time they are kept there."""

    def __init__(self, bytes_max: int, span_s: float) -> None:
        self._bytes_max = bytes_max
        self._span_s = span_s
        self._spent: deque[tuple[float, int]] = deque()
        self._bytes = 0

    def take(self, size_bytes: int, now_s: float) -> bool:
        """Take so much, unless it would be too much."""
        while self._spent and self._spent[0][0] <= now_s - self._span_s:
            self._bytes -= self._spent.popleft()[1]
        if self._bytes + size_bytes > self._bytes_max:
            return False
        self._spent.append((now_s, size_bytes))
        self._bytes += size_bytes
        return True
