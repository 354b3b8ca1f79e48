"""The connector's status file: what `tickgate status` and `tickgate up` read about it."""

import os
from pathlib import Path
from typing import Final

import msgspec

FILE_NAME: Final = "status.json"


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """state: starting, connecting, streaming, drained, failed. drained: a recording was read to its end, all of it is
    acknowledged, and its tallies were sent. ticks_*: by seq. at_ms: when this was written.
    """

    state: str
    source: str
    install: str = ""
    epoch: int = 0
    next_seq: int = 1
    acked_seq: int = 0
    pending_batches: int = 0
    pending_bytes: int = 0
    spool_full: bool = False
    terminal: str = "starting"
    terminal_restarts: int = 0
    symbols: int = 0
    utc_offset_s: int | None = None
    drained: bool = False
    problem: str = ""
    pid: int = 0
    at_ms: int = 0


def write_status(directory: Path, status: Status) -> None:
    """Replace the file in one step. It is a view, so it is not fsynced."""
    path = directory / FILE_NAME
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(status))
    temporary.replace(path)
