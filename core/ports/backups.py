"""Backups: how a store is written down in parts while everybody works, and filled again from them."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

Sink = Callable[[bytes, int], Awaitable[None]]
"""Takes one piece of a part and how many rows it holds."""
Epochs = Mapping[str, Collection[int]]
"""By source, the epochs the ledger knew when its snapshot was taken."""


class Snapshot(Protocol):
    """A store as it was at one moment, for as long as the snapshot is open."""

    @property
    def parts(self) -> Sequence[str]:
        """Name the parts, in letters, digits, dots, dashes and underscores."""

    async def write(self, part: str, sink: Sink) -> None:
        """Hand over a part, piece by piece, in bounded memory. Raises: Unavailable."""


class LedgerSnapshot(Snapshot, Protocol):
    """The ledger's snapshot is taken first: what it refers to is there in the others, whose snapshots come later."""

    @property
    def epochs(self) -> Epochs:
        """The epochs of every source; ticks of others are nobody's after a restore."""


class Loading(Protocol):
    """A store that is being filled."""

    async def occupied(self) -> str:
        """Name something that is there already, nothing when the store is empty. Raises: Unavailable."""

    async def clear(self) -> None:
        """Delete all that is there. Raises: Unavailable."""

    def order(self, parts: Collection[str]) -> Sequence[str]:
        """Return the parts in the order in which they can be loaded."""

    async def load(self, part: str, pieces: AsyncIterable[bytes]) -> int:
        """Store the pieces of a part as they were handed over, and return how many rows there are now of it.

        Raises: Unavailable. Corrupt: they are not what the store wrote.
        """


class LedgerLoading(Loading, Protocol):
    """The ledger's is one transaction, committed when the block ends: until then nobody is let in."""

    async def note_restore(self, backup: str) -> None:
        """Note that what is known of sources is from `backup`, where the schema has room for it."""


class Dumps(Protocol):
    """A store as backups see it."""

    def snapshot(self, epochs: Epochs) -> AbstractAsyncContextManager[Snapshot]:
        """Open a snapshot; `epochs`: what the ledger's knows. Raises: Unavailable."""

    def loading(self) -> AbstractAsyncContextManager[Loading]:
        """Begin to fill the store. Raises: Unavailable, Conflict: others are using it."""


class LedgerDumps(Protocol):
    """The ledger as backups see it."""

    def snapshot(self) -> AbstractAsyncContextManager[LedgerSnapshot]:
        """Open the first snapshot; no schema is changed and no retention noted while it is open.

        Raises: Unavailable, Conflict.
        """

    def loading(self) -> AbstractAsyncContextManager[LedgerLoading]:
        """Begin to fill the ledger. Raises: Unavailable, Conflict: others are using it."""
