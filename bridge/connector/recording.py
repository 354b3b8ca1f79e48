"""A terminal that plays recordings: the file is its history, a virtual clock decides how much of it has happened."""

import gzip
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np

from bridge.connector.playback import HistoryTerminal
from bridge.connector.recording_common import Recording
from bridge.connector.recording_formats import read
from bridge.connector.terminal import SymbolInfo, Traits
from core.errors.exceptions import Invalid, Misconfigured
from core.infrastructure.config_manager import write_settings_file
from core.model.ticks import Ticks

STATE_FILE: Final = "recording.json"
CONTENT_BYTES_MAX: Final = 2 * 1024**3
"""Unpacked; a larger one is refused instead of filling the memory."""
MEMBERS_MAX: Final = 10_000
GZIP_MAGIC: Final = b"\x1f\x8b"
ZIP_MAGIC: Final = b"PK"


class RecordingOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """speed: times real time, or `max`: all rows are there at once."""

    path: str
    speed: float | Literal["max"] = "max"


class _Clock(msgspec.Struct, frozen=True, kw_only=True):
    """The virtual clock stood at `virtual_ms` when ours stood at `started_at_s`. speed: 0 is `max`."""

    first_ms: int
    last_ms: int
    rows: int
    speed: float
    virtual_ms: float
    started_at_s: float

    def now_ms(self) -> float:
        if not self.speed:
            return float("inf")
        return self.virtual_ms + max(0.0, time.time() - self.started_at_s) * 1_000 * self.speed


class RecordingTerminal(HistoryTerminal):
    """Every answer follows from the file and the virtual clock alone.

    At a speed the clock's origin is kept in the directory, so that a restarted player goes on as if it had never
    stopped, like a market does: nothing that was visible ever disappears. Another speed goes on from where the old
    one was.
    """

    def __init__(self, options: Mapping[str, Any], directory: Path) -> None:
        try:
            self._options = msgspec.convert(dict(options), RecordingOptions)
        except msgspec.ValidationError as e:
            raise Misconfigured(f"terminal_options of a recording: {e}", code="BAD_TERMINAL_OPTIONS") from e
        if self._options.speed != "max" and not 0 < self._options.speed < float("inf"):
            raise Misconfigured(f"speed {self._options.speed} is not above 0", code="BAD_TERMINAL_OPTIONS")
        self._directory = directory
        self._recordings = load(Path(self._options.path))
        # Searching a column of packed rows would copy it each time.
        self._times = {s: np.ascontiguousarray(r.rows["time_msc"]) for s, r in self._recordings.items()}
        self._clock = self._open_clock()

    def traits(self) -> Traits:
        offsets = {recording.utc_offset_s for recording in self._recordings.values()}
        return Traits(declared_utc_offset_s=offsets.pop() if len(offsets) == 1 else None, replays=True)

    def finished(self) -> bool:
        return self._clock.now_ms() >= self._clock.last_ms

    def infos(self) -> tuple[SymbolInfo, ...]:
        return tuple(SymbolInfo(name=r.symbol, digits=r.digits) for r in self._recordings.values())

    def select_rows(self, symbol: str, from_ms: int, to_ms: int | None, count: int | None) -> Ticks:
        rows = self._recordings[symbol].rows
        times = self._times[symbol]
        start = int(np.searchsorted(times, from_ms, side="left"))
        now_ms = self._clock.now_ms()
        stop = (
            len(rows) if now_ms >= self._clock.last_ms else int(np.searchsorted(times, now_ms, side="right"))
        )
        if to_ms is not None:
            stop = min(stop, int(np.searchsorted(times, to_ms, side="right")))
        if count is not None:
            stop = min(stop, start + count)
        return rows[start : max(start, stop)]

    def newest(self, symbol: str) -> Ticks:
        rows = self.select_rows(symbol, 0, None, None)
        return rows[-1:]

    def _open_clock(self) -> _Clock:
        speed = 0.0 if self._options.speed == "max" else float(self._options.speed)
        first_ms = min(int(r.rows["time_msc"][0]) for r in self._recordings.values())
        last_ms = max(int(r.rows["time_msc"][-1]) for r in self._recordings.values())
        rows = sum(len(r.rows) for r in self._recordings.values())
        path = self._directory / STATE_FILE
        clock = _Clock(
            first_ms=first_ms,
            last_ms=last_ms,
            rows=rows,
            speed=speed,
            virtual_ms=first_ms,
            started_at_s=time.time(),
        )
        old = _read_clock(path)
        if old is not None and (old.first_ms, old.last_ms, old.rows) == (first_ms, last_ms, rows):
            if old.speed == speed:
                return old
            clock = msgspec.structs.replace(clock, virtual_ms=min(old.now_ms(), last_ms))
        self._directory.mkdir(parents=True, exist_ok=True)
        write_settings_file(path, msgspec.to_builtins(clock))
        return clock


def load(path: Path) -> dict[str, Recording]:
    """Read a recording, packed or not; several members of one symbol become one. Raises: Invalid."""
    found: dict[str, list[Recording]] = {}
    for content, name in _contents(path):
        recording = read(content, name)
        found.setdefault(recording.symbol, []).append(recording)
    return {symbol: _joined(parts) for symbol, parts in found.items()}


def _joined(parts: list[Recording]) -> Recording:
    if len(parts) == 1:
        return parts[0]
    rows = np.concatenate([part.rows for part in parts])
    return Recording(
        symbol=parts[0].symbol,
        rows=rows[np.argsort(rows["time_msc"], kind="stable")],
        digits=max(part.digits for part in parts),
        utc_offset_s=parts[0].utc_offset_s,
    )


def _contents(path: Path) -> Iterator[tuple[bytes, Path]]:
    try:
        with path.open("rb") as file:
            magic = file.read(2)
        if magic == ZIP_MAGIC:
            yield from _members(path)
        elif magic == GZIP_MAGIC:
            with gzip.open(path) as file:
                yield _bounded(file.read(CONTENT_BYTES_MAX + 1), path), path
        else:
            with path.open("rb") as file:
                yield _bounded(file.read(CONTENT_BYTES_MAX + 1), path), path
    except (OSError, EOFError, zipfile.BadZipFile, RuntimeError) as e:
        reason = getattr(e, "strerror", None) or str(e)
        raise Invalid(f"the recording {path} cannot be read: {reason}", code="BAD_RECORDING") from e


def _members(path: Path) -> Iterator[tuple[bytes, Path]]:
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        if not members or len(members) > MEMBERS_MAX:
            raise Invalid(f"{path.name} holds {len(members)} files", code="BAD_RECORDING")
        if sum(member.file_size for member in members) > CONTENT_BYTES_MAX:
            raise Invalid(
                f"{path.name} unpacks to more than {CONTENT_BYTES_MAX:,} bytes", code="BAD_RECORDING"
            )
        for member in members:
            yield archive.read(member), path / member.filename


def _bounded(content: bytes, path: Path) -> bytes:
    if len(content) > CONTENT_BYTES_MAX:
        raise Invalid(f"{path.name} is larger than {CONTENT_BYTES_MAX:,} bytes", code="BAD_RECORDING")
    return content


def _read_clock(path: Path) -> _Clock | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Clock)
    except (OSError, msgspec.DecodeError):
        return None
