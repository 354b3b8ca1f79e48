"""Sharing one load among many who ask for the same, so that nobody gets what was read before they asked.

Whoever asks while a load runs may not have its answer: it may have been read before a write that he knows of. He
shares the next one, with all who come until it begins. So of one key one load runs and one waits, however many ask.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Loaded = TypeVar("Loaded")


class Turns(Generic[Key, Loaded]):
    """Loads by key, one after the other."""

    def __init__(self) -> None:
        self._running: dict[Key, asyncio.Task[Loaded]] = {}
        self._waiting: dict[Key, asyncio.Task[Loaded]] = {}

    async def ask(self, key: Key, load: Callable[[], Awaitable[Loaded]]) -> Loaded:
        """Return what a load has found that began after this was called. Raises: what the load raises."""
        turn = self._waiting.get(key)
        if turn is None:
            turn = asyncio.create_task(self._turn(key, load))
            turn.add_done_callback(_seen)
            self._waiting[key] = turn
        # Shielded: others may be waiting for it still.
        return await asyncio.shield(turn)

    async def _turn(self, key: Key, load: Callable[[], Awaitable[Loaded]]) -> Loaded:
        if (before := self._running.get(key)) is not None:
            await asyncio.wait({before})
        turn = self._waiting.pop(key)
        self._running[key] = turn
        try:
            return await load()
        finally:
            if self._running.get(key) is turn:
                del self._running[key]


def _seen(task: "asyncio.Task[Any]") -> None:
    """Look at the error of a task whose askers may all have gone: it is theirs, and nobody else's."""
    if not task.cancelled():
        task.exception()
