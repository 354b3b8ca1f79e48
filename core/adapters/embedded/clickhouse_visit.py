"""One request's stay in the engine, as the calls a thread makes: few, because each costs a change of threads."""

from collections.abc import Iterable

from core.adapters.embedded.clickhouse_engine import Answer, Engine, Handle
from core.adapters.embedded.clickhouse_registry import Running
from core.adapters.embedded.clickhouse_request import Asked
from core.adapters.embedded.clickhouse_statement import Kind, Statement


class Visit:
    """Opens a handle of its own, or uses the session's; blocks, and is called by one thread at a time."""

    def __init__(self, engine: Engine, running: Running, asked: Asked, session: Handle | None) -> None:
        self.rows = 0
        self.rows_written = 0
        self._engine = engine
        self._running = running
        self._asked = asked
        self._session = session
        self._handle: Handle | None = None
        mark = {"log_comment": running.token} if session else {}
        self._settings = asked.settings | mark
        self._answer: Answer | None = None

    def insert(self, statement: Statement, pieces: Iterable[bytes]) -> int:
        """Store rows and return how many."""
        try:
            handle = self._enter()
            self._running.check()
            return handle.insert(statement.sql, statement.tail, statement.format or "", pieces)
        finally:
            self.leave()

    def begin(self, sql: bytes, fmt: str, kind: Kind, bytes_max: int) -> tuple[list[bytes], bool]:
        """Run a statement, return the parts of its answer up to `bytes_max`, and say whether that was all."""
        parts: list[bytes] = []
        size = 0
        try:
            handle = self._enter()
            self._running.check()
            self._answer = Answer(handle, sql, fmt, streamed=kind is Kind.READ)
            while size < bytes_max and (part := self._take(self._answer)):
                parts.append(part)
                size += len(part)
        except BaseException:
            self.leave()
            raise
        complete = size < bytes_max
        if complete:
            self.leave()
        return parts, complete

    def following(self) -> bytes:
        """Return the next part of the answer, b"" at its end."""
        return self._take(self._answer) if self._answer else b""

    def leave(self) -> None:
        """Give the handle back; to be called when the request is over, however it ended."""
        answer, self._answer = self._answer, None
        handle, self._handle = self._handle, None
        if answer is not None:
            answer.close()
        if handle is None:
            return
        if self._session is None:
            handle.close()
        else:
            # What one call was set to is not for the next one.
            handle.reset(self._settings)

    def _enter(self) -> Handle:
        handle = self._handle = self._session or self._engine.open(self._running.token)
        handle.configure(self._asked.database, self._settings)
        for table in self._asked.tables:
            handle.load(table.name, table.structure, table.format, table.data)
        return handle

    def _take(self, answer: Answer) -> bytes:
        self._running.check()
        part = answer.next()
        self.rows, self.rows_written = answer.rows, answer.rows_written
        return part
