"""The ClickHouse engine inside this process: handles with settings of their own, streamed answers, inserts.

Everything here blocks and is called from threads. One process owns a directory; the engine survives no fork.
"""

import contextlib
import fcntl
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, Final

import chdb

from core.adapters.embedded.clickhouse_body import ArrowJoiner
from core.adapters.embedded.clickhouse_errors import (
    BAD_ARGUMENTS,
    SYNTAX_ERROR,
    EngineError,
    from_engine,
    refusal,
)
from core.errors.exceptions import Conflict, Unavailable

# Blocks of these formats make one valid answer when joined; other formats have a head or a foot.
_JOINABLE: Final = frozenset(
    {
        "Native",
        "TabSeparated",
        "TSV",
        "TabSeparatedRaw",
        "CSV",
        "RowBinary",
        "JSONEachRow",
        "JSONCompactEachRow",
    }
)
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LOCK: Final = "owner.lock"
_NO_STREAM: Final = "Streaming query is not supported"


class Engine:
    """Owns the data directory until `close`."""

    def __init__(self, directory: Path, memory_bytes_max: int) -> None:
        self._path = str(directory.resolve())
        # The engine has a lock of its own, but reports it in two lines of jargon on our standard error.
        self._lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(f"Another process uses the ClickHouse data in {self._path}") from error
        # A single query may not take it all: inserts and merges go on beside it.
        self._defaults = f"max_memory_usage={memory_bytes_max // 2}"
        try:
            self._keeper = _connect(f"{self._path}?max_server_memory_usage={memory_bytes_max}")
            self.timezone = self.ask("SELECT timezone()").strip()
        except RuntimeError as error:
            raise Unavailable(
                f"ClickHouse cannot open its data in {self._path}", detail=str(error)
            ) from error

    def open(self, token: str) -> "Handle":
        """Open a handle: as cheap as a query, and nothing of it reaches the next caller."""
        return Handle(_connect(f"{self._path}?{self._defaults}&log_comment={token}"))

    def ask(self, sql: str, fmt: str = "TabSeparated") -> str:
        """Run a short question of our own."""
        with contextlib.closing(Handle(_connect(self._path))) as handle:
            answer: bytes = handle.run(sql.encode(), fmt).bytes()
        return answer.decode()

    def kill(self, token: str) -> None:
        """Stop what runs under `token`, if it has begun; does not wait."""
        self.ask(f"KILL QUERY WHERE Settings['log_comment'] = '{token}' ASYNC")

    def close(self) -> None:
        self._keeper.close()
        os.close(self._lock)


class Handle:
    """One engine connection with settings of its own; used by one thread at a time."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def configure(self, database: str, settings: Mapping[str, str]) -> None:
        """Choose the database and apply settings; a setting `param_x` is the value of `{x:Type}`."""
        if database:
            self.run(f"USE `{database.replace('`', '``')}`".encode(), "Null")
        if settings:
            pairs = ", ".join(f"{_checked(name)} = {_quoted(value)}" for name, value in settings.items())
            self.run(f"SET {pairs}".encode(), "Null")

    def reset(self, names: Iterable[str]) -> None:
        for name in names:
            with contextlib.suppress(EngineError):
                self.run(f"SET {_checked(name)} = DEFAULT".encode(), "Null")

    def run(self, sql: bytes, fmt: str) -> Any:
        """Run a statement and return the engine's result."""
        try:
            return self._connection.query(sql, fmt)
        except Exception as error:
            raise from_engine(error) from error

    def run_single(self, sql: bytes, fmt: str) -> Any:
        """Run one statement; the engine by itself would run every one of `a; b`."""
        verdict = self._connection._conn.classify_query(sql.decode("utf-8", "replace"))
        if verdict["statement_count"] > 1:
            raise refusal(SYNTAX_ERROR, "Syntax error (Multi-statements are not allowed)", "SYNTAX_ERROR")
        return self.run(sql, fmt)

    def stream(self, sql: bytes, fmt: str) -> Any:
        """Start a streamed answer, or return None when the engine streams no such statement."""
        try:
            return self._connection.send_query(sql, fmt)
        except Exception as error:
            if _NO_STREAM in str(error):
                return None
            raise from_engine(error) from error

    def insert(self, statement: bytes, tail: bytes, fmt: str, pieces: Iterable[bytes]) -> int:
        """Insert the rows of `pieces` and return how many were written. tail: a SETTINGS clause, or nothing.

        The rows lie in an anonymous file. The engine's own way of taking them in pieces reports rows as written
        whose insert was refused, stopped or too slow, and would have us acknowledge what is not there.
        """
        with _anonymous_file() as file:
            file.writelines(pieces)
            # Where opening /dev/fd duplicates the descriptor, the engine reads from where we stand.
            file.seek(0)
            sql = b"%b FROM INFILE '/dev/fd/%d' COMPRESSION 'none' %b FORMAT %b" % (
                *(statement, file.fileno()),
                *(tail, fmt.encode()),
            )
            return int(self.run(sql, "Null").rows_written())

    def load(self, table: str, structure: str, fmt: str, data: bytes) -> None:
        """Put a table sent along with the query where only this handle sees it."""
        quoted = f"`{table.replace('`', '``')}`"
        self.run(f"CREATE OR REPLACE TEMPORARY TABLE {quoted} ({structure})".encode(), "Null")
        self.insert(f"INSERT INTO {quoted}".encode(), b"", fmt, [data])

    def close(self) -> None:
        self._connection.close()


class Answer:
    """What a statement answers, chunk by chunk where the format allows, else as a whole."""

    def __init__(self, handle: Handle, sql: bytes, fmt: str, *, streamed: bool) -> None:
        self.rows = 0
        self.rows_written = 0
        self._handle = handle
        self._sql = sql
        self._format = fmt
        self._joiner = ArrowJoiner() if fmt == "ArrowStream" else None
        self._stream: Any = None
        self._whole: bytes | None = None
        if streamed and (fmt in _JOINABLE or self._joiner):
            self._stream = handle.stream(sql, fmt)
        if self._stream is None:
            self._read_whole()

    def next(self) -> bytes:
        """Return the next part of the answer, b"" at its end."""
        if self._stream is None:
            whole, self._whole = self._whole, None
            return whole or b""
        try:
            chunk = self._stream.fetch()
        except Exception as error:
            raise from_engine(error) from error
        if chunk is None:
            return self._end()
        self.rows += chunk.rows_read()
        part: bytes = chunk.bytes()
        return self._joiner.feed(part) if self._joiner else part

    def close(self) -> None:
        if self._stream is not None:
            with contextlib.suppress(Exception):
                self._stream.close()

    def _end(self) -> bytes:
        self._stream = None
        if self._joiner is None:
            return b""
        if self.rows == 0:
            # An Arrow answer without rows still has a schema, which only the other way of asking gives.
            self._read_whole()
            return self.next()
        return self._joiner.finish()

    def _read_whole(self) -> None:
        result = self._handle.run_single(self._sql, self._format)
        self.rows += result.rows_read()
        self.rows_written = result.rows_written()
        self._whole = result.bytes()


def _connect(address: str) -> Any:
    return chdb.connect(address)  # type: ignore[no-untyped-call]


def _anonymous_file() -> IO[bytes]:
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("insert"), "w+b")
    return tempfile.TemporaryFile("w+b")


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise refusal(BAD_ARGUMENTS, f"Not the name of a setting: {name!r}", "BAD_ARGUMENTS")
    return name


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
