"""Which commands have been carried out: written down and fsynced before the terminal is asked, kept beside the spool.

A command that is found here is never carried out again. One without a reply was being carried out when this process
died: nobody can say what became of it.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from bridge.connector.spool_file import readable_errors
from bridge.connector.trade_view import Sent
from core.errors.exceptions import Misconfigured
from core.model.orders import Side

FILE_NAME: Final = "orders.sqlite"
SCHEMA_VERSION: Final = 1
LOCK_TIMEOUT_S: Final = 2.0
ROWS_MAX: Final = 10_000
"""Of commands; the oldest are forgotten. They are out of date by far, so they would not be carried out anyway."""

SCHEMA: Final = """
CREATE TABLE asked (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, at_ms INTEGER NOT NULL, reply BLOB,
    tag TEXT NOT NULL, magic INTEGER NOT NULL, symbol TEXT NOT NULL, side TEXT NOT NULL, ticket INTEGER NOT NULL
)
"""
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is written of a command. reply: None while nobody can say what became of it."""

    reply: bytes | None


class OrderJournal:
    """SQLite on a thread of its own: it waits for the disk there, not on the event loop."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "orders")
        self._connection: sqlite3.Connection | None = None
        self._path = Path()

    async def open(self, directory: Path) -> None:
        """Raises: Misconfigured, Corrupt, Conflict, Unavailable."""
        self._path = directory / FILE_NAME
        self._connection = await self._run(lambda: _open_file(self._path))

    async def close(self) -> None:
        if self._connection is not None:
            await self._run(self._open.close)
        self._executor.shutdown(wait=True)

    async def find(self, command_id: str) -> Found | None:
        """Return what is written of a command, None where it is new. Raises: Unavailable, Corrupt."""
        return await self._run(lambda: self._find(command_id))

    async def begin(self, command_id: str, at_ms: int, sent: Sent | None) -> None:
        """Write down, durably, that the terminal is being asked. sent: of a command that sends an order.

        Raises: Unavailable, Corrupt; then the terminal must not be asked.
        """
        await self._run(lambda: self._begin(command_id, at_ms, sent))

    async def finish(self, command_id: str, reply: bytes, ticket: int) -> None:
        """Write down what became of it. Raises: Unavailable, Corrupt."""
        await self._run(lambda: self._finish(command_id, reply, ticket))

    async def sent(self) -> list[Sent]:
        """Return the orders that are remembered, oldest first."""
        return await self._run(self._sent)

    def _find(self, command_id: str) -> Found | None:
        found = self._open.execute("SELECT reply FROM asked WHERE id = ?", (command_id,)).fetchone()
        return None if found is None else Found(reply=found[0])

    def _begin(self, command_id: str, at_ms: int, sent: Sent | None) -> None:
        row = (sent.tag, sent.magic, sent.symbol, sent.side.value) if sent else ("", 0, "", "")
        insert = (
            "INSERT INTO asked (id, at_ms, tag, magic, symbol, side, ticket) VALUES (?, ?, ?, ?, ?, ?, 0)"
        )
        self._open.execute("BEGIN IMMEDIATE")
        try:
            number = self._open.execute(insert, (command_id, at_ms, *row)).lastrowid or 0
            self._open.execute("DELETE FROM asked WHERE number <= ?", (number - ROWS_MAX,))
            self._open.execute("COMMIT")
        except BaseException:
            if self._open.in_transaction:
                self._open.execute("ROLLBACK")
            raise

    def _finish(self, command_id: str, reply: bytes, ticket: int) -> None:
        self._open.execute("UPDATE asked SET reply = ?, ticket = ? WHERE id = ?", (reply, ticket, command_id))

    def _sent(self) -> list[Sent]:
        select = "SELECT tag, magic, symbol, side, at_ms, ticket FROM asked WHERE tag <> '' ORDER BY number"
        return [
            Sent(tag=tag, magic=magic, symbol=symbol, side=Side(side), at_ms=at_ms, ticket=ticket)
            for tag, magic, symbol, side, at_ms, ticket in self._open.execute(select)
        ]

    @property
    def _open(self) -> sqlite3.Connection:
        assert self._connection is not None, "open() comes first"
        return self._connection

    async def _run(self, work: Callable[[], Result]) -> Result:
        def guarded() -> Result:
            with readable_errors(self._path):
                return work()

        # Shielded: a cancelled caller must not leave a change half known.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._executor, guarded))


def _open_file(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as e:
        raise Misconfigured(f"the directory {path.parent} cannot be made: {e.strerror}") from e
    connection = sqlite3.connect(path, timeout=LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, SCHEMA_VERSION):
            raise Misconfigured(f"{path} was written by another version of tickgate ({version})")
        if not version:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(SCHEMA)
            connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection
