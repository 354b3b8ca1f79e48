"""A way to let a coroutine die at any of its awaits, as a killed process does, or be held up there, as a slow one."""

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any, Final

from core.errors.exceptions import Defect, TickgateError

HELD_UP_S: Final = 0.003
"""Enough for somebody else to come between; whoever waits for a lock of the one held up waits as long."""


class DiesAtAwait:
    """Runs a coroutine in a task of its own up to its n-th await, and cancels it there."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], awaits: int) -> None:
        self._coroutine = coroutine
        self._left = awaits

    def __await__(self) -> Generator[Any, Any, Any]:
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                waited = self._coroutine.throw(error) if error else self._coroutine.send(value)
            except StopIteration as e:
                return e.value
            value = error = None
            if self._left == 0:
                self._at_await()
            self._left -= 1
            try:
                value = yield waited
            except BaseException as e:
                error = e

    def _at_await(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()


class HeldUpAtAwait:
    """Runs a coroutine, and lets others run for a moment before its n-th await."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], awaits: int) -> None:
        self._coroutine = coroutine
        self._left = awaits

    def __await__(self) -> Generator[Any, Any, Any]:
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                waited = self._coroutine.throw(error) if error else self._coroutine.send(value)
            except StopIteration as e:
                return e.value
            value = error = None
            try:
                value = yield waited
                if self._left == 0:
                    yield from asyncio.sleep(HELD_UP_S).__await__()
            except BaseException as e:
                error = e
            self._left -= 1


async def held_up(coroutine: Coroutine[Any, Any, Any], awaits: int | None) -> Any:
    """Return what the coroutine does, held up behind its await number `awaits`."""
    return await (coroutine if awaits is None else HeldUpAtAwait(coroutine, awaits))


async def dying(coroutine: Coroutine[Any, Any, Any], awaits: int | None) -> Any:
    """Return what the coroutine does, or None where it died at its await number `awaits`. Raises: Defect."""
    if awaits is None:
        return await coroutine

    async def lived() -> Any:
        return await DiesAtAwait(coroutine, awaits)

    task = asyncio.create_task(lived())
    try:
        return await task
    except asyncio.CancelledError:
        return None
    except Defect:
        raise
    except TickgateError:
        # Cancelled where a driver turns that into an error of its own.
        return None
