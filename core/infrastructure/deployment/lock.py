"""One `tickgate up` for each data directory at a time: a file lock that the kernel drops with its holder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.errors.exceptions import Conflict


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock. Raises: Conflict (code UP_RUNNING) naming the process that holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            holder = os.read(descriptor, 20).decode(errors="replace").strip() or "?"
            raise Conflict(
                f"another `tickgate up` (pid {holder}) works on {path.parent}", code="UP_RUNNING"
            ) from e
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)
