"""The spool's thread: SQLite waits for the disk there, not on the event loop."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from bridge.connector.cursor import CursorState
from bridge.connector.frames import Outgoing, pack
from bridge.connector.spool import Spool, SpoolState
from bridge.connector.tallies import TallyDelta
from core.messages.wire import Batch

Result = TypeVar("Result")


class SpoolThread:
    """The spool as coroutines. `state` is of the last finished change."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "spool")
        self._spool: Spool | None = None
        self.state = SpoolState(
            install="", first_seq=1, next_seq=1, pending_batches=0, pending_bytes=0, started=False
        )
        self._changed = asyncio.Event()

    async def open(self, directory: Path, bytes_max: int) -> None:
        """Raises: Corrupt, Conflict, Misconfigured, SpoolFull."""
        self._spool = await self._run(lambda: Spool(directory, bytes_max))
        self.state = self._spool.state()

    async def close(self) -> None:
        if self._spool is not None:
            await self._run(self._spool.close)
        self._executor.shutdown(wait=True)

    async def cursors(self) -> dict[str, CursorState]:
        return await self._run(self._open.cursors)

    async def start(self, cursors: Mapping[str, CursorState]) -> None:
        await self._change(lambda: self._open.start(cursors))

    async def start_epoch(self) -> None:
        await self._change(self._open.start_epoch)

    async def remember_offset(self, offset_s: int, measured_at_s: int) -> None:
        await self._run(lambda: self._open.remember_offset(offset_s, measured_at_s))

    async def remembered_offset(self) -> tuple[int, int] | None:
        return await self._run(self._open.remembered_offset)

    async def append(self, batches: Sequence[Batch], cursors: Mapping[str, CursorState]) -> None:
        """Raises: SpoolFull, and then nothing was stored."""
        await self._change(lambda: self._open.append(batches, cursors))

    async def acknowledge(self, durable_seq: int) -> list[TallyDelta]:
        return await self._change(lambda: self._open.acknowledge(durable_seq))

    async def tallies(self, count_max: int) -> list[TallyDelta]:
        return await self._run(lambda: self._open.tallies(count_max))

    async def outgoing(self, from_seq: int, rows_max: int, bytes_max: int) -> list[Outgoing]:
        """Return frames to send from `from_seq` on, joined or cut to at most `rows_max` rows. Raises: Corrupt."""
        return await self._run(lambda: pack(self._open.frames(from_seq, bytes_max), from_seq, rows_max))

    async def wait_for(self, seq: int) -> None:
        """Return when the spool holds `seq`."""
        while self.state.next_seq <= seq:
            self._changed.clear()
            await self._changed.wait()

    @property
    def _open(self) -> Spool:
        assert self._spool is not None, "open() comes first"
        return self._spool

    async def _change(self, work: Callable[[], Result]) -> Result:
        def change() -> tuple[Result, SpoolState]:
            result = work()
            return result, self._open.state()

        result, self.state = await self._run(change)
        self._changed.set()
        return result

    async def _run(self, work: Callable[[], Result]) -> Result:
        # Shielded: a cancelled caller must not leave the state behind the file.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._executor, work))
