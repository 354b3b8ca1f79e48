"""What `tickgate up` is asked to run, remembered between commands, and the programs that follow."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from core.errors.exceptions import Invalid
from core.infrastructure.config_manager import write_settings_file
from core.infrastructure.deployment.layout import Layout
from core.infrastructure.deployment.programs import (
    Program,
    connector_programs,
    engine_programs,
    service_programs,
)
from core.infrastructure.import_manager import resolve

DEMO_SOURCE: Final = "demo"
DEMO_SYMBOL: Final = "EURUSD"
RECORDING_TERMINAL: Final = "bridge.connector.recording:RecordingTerminal"
RECORDING_LOADER: Final = "bridge.connector.recording:load"
SPEED_MAX: Final = "max"
TERMINAL_SERVER: Final = "demo-mt5"
"""Where the demo's simulated terminal is signed in, as its account says."""
STEM_LENGTH_MAX: Final = 32
FOREIGN: Final = re.compile(r"[^a-z0-9]+")
HASH_CHUNK_BYTES: Final = 1024**2


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """A recording and the source its ticks are stored under, which follows from its content."""

    path: str
    source: str


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """speed: times real time, or `max`. demo: whether the simulated terminal runs. example: a symbol to show."""

    port_base: int
    demo: bool
    replays: tuple[Replay, ...] = ()
    speed: str = SPEED_MAX
    example: str = DEMO_SYMBOL

    def same_as(self, other: "Wish") -> bool:
        """Whether the same things run, on the same ports."""
        return msgspec.structs.replace(self, example=other.example) == other

    @property
    def sources(self) -> tuple[str, ...]:
        replayed = tuple(replay.source for replay in self.replays)
        return (DEMO_SOURCE, *replayed) if self.demo else replayed

    @property
    def drains(self) -> bool:
        return bool(self.replays) and self.speed == SPEED_MAX


def source_name(path: Path) -> str:
    """Return the source name of a recording: the same content continues where it stopped.

    Raises:
        Invalid: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(HASH_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as e:
        raise Invalid(f"the recording {path} cannot be read: {e.strerror}", code="BAD_RECORDING") from e
    stem = FOREIGN.sub("-", path.stem.lower())[:STEM_LENGTH_MAX].strip("-") or "recording"
    return f"replay-{stem}-{digest.hexdigest()[:8]}"


def replays_of(paths: Sequence[Path]) -> tuple[Replay, ...]:
    """Name the source of each recording; the same content given twice is replayed once. Raises: Invalid."""
    # Not resolved further: the symbol follows from the name the file was given under, link or not.
    by_source = {source_name(path): path.absolute() for path in paths}
    return tuple(Replay(path=str(path), source=source) for source, path in by_source.items())


def check_recordings(wish: Wish) -> Wish:
    """Read every recording once, as its connector will, and note a symbol. Raises: Invalid, with file and line."""
    for replay in wish.replays:
        symbols = resolve(RECORDING_LOADER)(Path(replay.path))
        wish = msgspec.structs.replace(wish, example=next(iter(symbols)))
    return wish


def terminals_of(wish: Wish) -> dict[str, Mapping[str, str]]:
    """Return, by source, the connector settings that say which terminal it reads."""
    speed: float | str = wish.speed if wish.speed == SPEED_MAX else float(wish.speed)
    # A simulated terminal may trade; a real one only where its owner has said so.
    demo = {"orders": True, "terminal_options": json.dumps({"server": TERMINAL_SERVER})}
    terminals: dict[str, Mapping[str, Any]] = {DEMO_SOURCE: demo} if wish.demo else {}
    for replay in wish.replays:
        options = json.dumps({"path": replay.path, "speed": speed})
        terminals[replay.source] = {"terminal": RECORDING_TERMINAL, "terminal_options": options}
    return terminals


def programs_of(layout: Layout, tree: Mapping[str, Any], wish: Wish) -> list[Program]:
    """Return all programs in starting order. tree: the settings file's."""
    connectors = connector_programs(layout, wish.sources, drains=wish.drains)
    return [*engine_programs(layout, tree), *service_programs(layout, tree), *connectors]


def remember(layout: Layout, wish: Wish) -> None:
    """Keep what is being run, for status, logs and the next `up`."""
    write_settings_file(layout.deployment_file, msgspec.to_builtins(wish))


def recall(layout: Layout) -> Wish | None:
    """Return what the last `up` was asked to run; None when there was none or its record cannot be read."""
    try:
        return msgspec.json.decode(layout.deployment_file.read_bytes(), type=Wish)
    except (OSError, msgspec.MsgspecError):
        return None
