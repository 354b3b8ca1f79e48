"""What a test does for as long as it does something else."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from typing import Any


@contextlib.contextmanager
def beside(doing: Coroutine[Any, Any, None]) -> Iterator[None]:
    """Do something in a thread of its own until left."""
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = Future()

    async def run() -> None:
        task = asyncio.ensure_future(doing)
        started.set_result((asyncio.get_running_loop(), task))
        await asyncio.wait({task})

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    loop, task = started.result()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
