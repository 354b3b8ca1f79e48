"""Room kept on the disk: deleting from a database takes a little space, which a full disk would not give."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

FILE_NAME: Final = "spool.reserve"
RESERVE_BYTES_MAX: Final = 32 * 1024**2
"""Twice the largest transaction, which a checkpoint may have to copy."""
RESERVE_FRACTION: Final = 16
CHUNK_BYTES: Final = 1024**2


class Reserve:
    """A file of nothing, given up when the disk is full and taken again afterwards."""

    def __init__(self, directory: Path, bytes_max: int) -> None:
        self._path = directory / FILE_NAME
        self._bytes = min(RESERVE_BYTES_MAX, bytes_max // RESERVE_FRACTION)
        self.held = False
        self.take()

    def take(self) -> None:
        """Occupy the space, if there is enough."""
        if self.held:
            return
        try:
            if not self._path.exists() or self._path.stat().st_size != self._bytes:
                self._write()
            self.held = True
        except OSError:
            self.give()

    def give(self) -> None:
        """Free the space."""
        self.held = False
        with suppress(FileNotFoundError):
            self._path.unlink()

    def _write(self) -> None:
        # Written, not only sized: a sparse file would keep nothing.
        with self._path.open("wb") as file:
            left = self._bytes
            while left:
                left -= file.write(bytes(min(left, CHUNK_BYTES)))
            file.flush()
            os.fsync(file.fileno())
