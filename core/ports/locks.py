"""Locks: one writer at a time, for stores that cannot compare and set by themselves."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Locks(Protocol):
    """Locks by name, seen by every process. What holds one for another's sake is kept short: a read and a write."""

    def held(self, tenant: str, kind: str, record_id: str) -> AbstractAsyncContextManager[None]:
        """Hold the lock of a name while the block runs. Not reentrant; two names may share a lock, harmlessly.

        The block must not ask for a second lock, and ends soon: after HELD_S_MAX of the adapter it is cancelled.
        A holder whose store of locks goes away meanwhile is told when the block has ended; what it wrote is written.

        Raises:
            Conflict: others hold it for longer than we wait (code RECORD_BUSY); nothing was done.
            Unavailable: locks cannot be had now, or the block took too long (code LOCK_EXPIRED).
        """
