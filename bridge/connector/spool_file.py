"""The spool's database file: its schema, how it is opened, and what its errors mean."""

import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from core.errors.exceptions import Conflict, Corrupt, Misconfigured, Unavailable

FILE_NAME: Final = "spool.sqlite"
SCHEMA_VERSION: Final = 1
PAGE_BYTES: Final = 16_384
WAL_BYTES_KEPT_MAX: Final = 64 * 1024**2
WAL_PAGES_MAX: Final = 256
"""Then they are copied into the file: a full disk must have room for that."""
LOCK_TIMEOUT_S: Final = 2.0
DISK_CODES: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN})
BROKEN_CODES: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

SCHEMA: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE cursors (symbol TEXT PRIMARY KEY, time_msc INTEGER NOT NULL, count INTEGER NOT NULL,
    prefix_rows INTEGER NOT NULL, prefix_digest INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE batches (first_seq INTEGER PRIMARY KEY, last_seq INTEGER NOT NULL, tallies BLOB NOT NULL,
    frame BLOB NOT NULL);
CREATE TABLE tallies (symbol TEXT NOT NULL, day INTEGER NOT NULL, rows INTEGER NOT NULL, first_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL, checksum INTEGER NOT NULL, PRIMARY KEY (symbol, day)) WITHOUT ROWID;
"""


class SpoolFull(Unavailable):
    """No room: at the limit, or on the disk. Nothing was written; stop reading until the bridge has taken some."""

    default_code = "SPOOL_FULL"


def open_file(directory: Path) -> sqlite3.Connection:
    """Open the spool in `directory`, made if there is none. Raises: Misconfigured, and inside `readable_errors`."""
    path = directory / FILE_NAME
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as e:
        raise Misconfigured(f"the spool directory {directory} cannot be made: {e.strerror}") from e
    connection = sqlite3.connect(path, timeout=LOCK_TIMEOUT_S, isolation_level=None)
    try:
        connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
        # Exclusive: a second connector on this spool is refused, and WAL needs no shared memory file.
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA journal_size_limit={WAL_BYTES_KEPT_MAX}")
        connection.execute(f"PRAGMA wal_autocheckpoint={WAL_PAGES_MAX}")
        connection.execute("BEGIN IMMEDIATE")
        _prepare(path, connection)
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(path: Path, connection: sqlite3.Connection) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == SCHEMA_VERSION:
        return
    if version:
        raise Misconfigured(f"the spool {path} was written by another version of tickgate ({version})")
    for statement in SCHEMA.split(";"):
        connection.execute(statement)
    write_new_install(connection)
    connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def write_new_install(connection: sqlite3.Connection) -> None:
    meta = {"install": uuid.uuid4().hex, "next_seq": "1", "started": "0"}
    connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())


@contextmanager
def readable_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as e:
        code = getattr(e, "sqlite_errorcode", 0) & 0xFF
        if code in DISK_CODES:
            raise SpoolFull(f"the disk does not take the spool {path}: {e}") from e
        if code in BROKEN_CODES:
            text = (
                f"the spool {path} is damaged: move it away; the connector then starts a new epoch and"
                " reads on from what the store holds"
            )
            raise Corrupt(text, code="SPOOL_CORRUPT") from e
        if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            raise Conflict(f"another connector uses the spool {path}", code="SPOOL_LOCKED") from e
        raise Unavailable(f"the spool {path} fails: {e}", code="SPOOL_FAILED") from e
