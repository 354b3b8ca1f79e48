"""The spool: every tick that was read and is not yet acknowledged, in one SQLite file that survives kill -9.

Ticks, their seqs, the cursors behind them and their tallies change in one transaction, so no crash can skip or repeat
a tick. Used from one thread; `spool_thread` gives it one.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from bridge.connector.cursor import CursorState
from bridge.connector.reserve import Reserve
from bridge.connector.spool_file import FILE_NAME, SpoolFull, open_file, readable_errors, write_new_install
from bridge.connector.tallies import TallyDelta, deltas_of, fold
from core.errors.exceptions import Corrupt
from core.messages.wire import Batch, encode_batch

DELETED_AT_ONCE_MAX: Final = 256
SIGN: Final = 2**63
"""SQLite integers are signed: a checksum is stored 2**63 lower."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolState:
    """first_seq: the oldest that can still be sent, next_seq when there is none. started: cursors may be trusted."""

    install: str
    first_seq: int
    next_seq: int
    pending_batches: int
    pending_bytes: int
    started: bool


_tallies = msgspec.msgpack.Decoder(list[TallyDelta])


class Spool:
    """One source's spool file, locked against a second connector."""

    def __init__(self, directory: Path, bytes_max: int) -> None:
        self._path = directory / FILE_NAME
        self._bytes_max = bytes_max
        with readable_errors(self._path):
            self._connection = open_file(directory)
            self._load()
        self._reserve = Reserve(directory, bytes_max)

    def _load(self) -> None:
        meta = dict(self._connection.execute("SELECT name, value FROM meta"))
        try:
            self._install = meta["install"]
            self._next_seq = int(meta["next_seq"])
            self._started = meta["started"] == "1"
        except (KeyError, ValueError) as e:
            raise Corrupt(f"the spool {self._path} has no valid head", code="SPOOL_CORRUPT") from e
        sizes = self._connection.execute("SELECT first_seq, length(frame) FROM batches ORDER BY first_seq")
        self._sizes: dict[int, int] = dict(sizes)
        self._bytes = sum(self._sizes.values())

    def close(self) -> None:
        self._connection.close()

    def state(self) -> SpoolState:
        return SpoolState(
            install=self._install,
            first_seq=next(iter(self._sizes), self._next_seq),
            next_seq=self._next_seq,
            pending_batches=len(self._sizes),
            pending_bytes=self._bytes,
            started=self._started,
        )

    def cursors(self) -> dict[str, CursorState]:
        rows = self._connection.execute(
            "SELECT symbol, time_msc, count, prefix_rows, prefix_digest FROM cursors"
        )
        return {
            symbol: CursorState(time_msc=ms, count=count, prefix_rows=prefix, prefix_digest=digest)
            for symbol, ms, count, prefix, digest in rows
        }

    def start(self, cursors: Mapping[str, CursorState]) -> None:
        """The bridge has said where this new spool begins in market time."""
        with self._transaction():
            self._write_cursors(cursors)
            self._write_meta("started", "1")
        self._started = True

    def remember_offset(self, offset_s: int, measured_at_s: int) -> None:
        """Keep a measured clock offset for the next start."""
        with self._transaction():
            self._write_meta("utc_offset", f"{offset_s} {measured_at_s}")

    def remembered_offset(self) -> tuple[int, int] | None:
        """Return the offset in seconds and when it was measured, if one is kept."""
        found = self._connection.execute("SELECT value FROM meta WHERE name = 'utc_offset'").fetchone()
        if found is None:
            return None
        offset_s, measured_at_s = found[0].split()
        return int(offset_s), int(measured_at_s)

    def start_epoch(self) -> None:
        """Begin a new life: another install, no ticks, no cursors until the bridge gives them."""
        with self._transaction():
            for table in ("batches", "cursors", "tallies", "meta"):
                self._connection.execute(f"DELETE FROM {table}")
            write_new_install(self._connection)
        self._load()

    def append(self, batches: Iterable[Batch], cursors: Mapping[str, CursorState]) -> int:
        """Store batches and the cursors behind them; their seqs are given here. Return the next seq.

        Raises: SpoolFull, and then nothing was stored. Corrupt.
        """
        seq = self._next_seq
        sizes: dict[int, int] = {}
        encoder = msgspec.msgpack.Encoder()
        with self._transaction():
            for unnumbered in batches:
                batch = msgspec.structs.replace(unnumbered, first_seq=seq)
                frame = encode_batch(batch)
                sizes[seq] = len(frame)
                # An empty spool takes a round of any size: one larger than the limit could never be stored otherwise.
                if self._bytes and self._bytes + sum(sizes.values()) > self._bytes_max:
                    raise SpoolFull(
                        f"the spool holds {self._bytes:,} bytes, its limit is {self._bytes_max:,}"
                    )
                row = (seq, batch.last_seq, encoder.encode(deltas_of(batch)), frame)
                self._connection.execute("INSERT INTO batches VALUES (?, ?, ?, ?)", row)
                seq = batch.last_seq + 1
            self._write_cursors(cursors)
            self._write_meta("next_seq", str(seq))
        self._sizes.update(sizes)
        self._bytes += sum(sizes.values())
        self._next_seq = seq
        return seq

    def acknowledge(self, durable_seq: int) -> list[TallyDelta]:
        """Delete what is wholly durable and add it to its tallies. Return the tallies that changed.

        Raises: SpoolFull, when even that finds no room on the disk; what could be deleted is.
        """
        changed: dict[tuple[str, int], TallyDelta] = {}
        try:
            while self._delete_some(durable_seq, changed):
                pass
        except SpoolFull:
            self._reserve.give()
            with readable_errors(self._path):
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            while self._delete_some(durable_seq, changed):
                pass
        if not self._reserve.held and not self._sizes:
            self._reserve.take()
        return list(changed.values())

    def _delete_some(self, durable_seq: int, changed: dict[tuple[str, int], TallyDelta]) -> bool:
        select = (
            "SELECT first_seq, last_seq, tallies FROM batches WHERE first_seq <= ? ORDER BY first_seq LIMIT ?"
        )
        found = self._connection.execute(select, (durable_seq, DELETED_AT_ONCE_MAX)).fetchall()
        done = [(first_seq, packed) for first_seq, last_seq, packed in found if last_seq <= durable_seq]
        if not done:
            return False
        folded = fold([delta for _, packed in done for delta in _tallies.decode(packed)])
        with self._transaction():
            self._connection.execute("DELETE FROM batches WHERE first_seq <= ?", (done[-1][0],))
            totals = {key: self._add_tally(delta) for key, delta in folded.items()}
        changed.update(totals)
        for first_seq, _ in done:
            self._bytes -= self._sizes.pop(first_seq)
        return True

    def tallies(self, count_max: int) -> list[TallyDelta]:
        """Return the newest tallies of everything acknowledged so far."""
        select = "SELECT symbol, day, rows, first_seq, last_seq, checksum FROM tallies ORDER BY last_seq DESC LIMIT ?"
        return [_tally(row) for row in self._connection.execute(select, (count_max,))]

    def frames(self, from_seq: int, bytes_max: int) -> list[bytes]:
        """Return stored BATCH frames in order, the first one holding `from_seq`; at least one if there is any."""
        select = "SELECT frame FROM batches WHERE first_seq >= ? ORDER BY first_seq"
        frames: list[bytes] = []
        size = 0
        with closing(self._connection.execute(select, (self._floor(from_seq),))) as rows:
            for (frame,) in rows:
                if frames and size + len(frame) > bytes_max:
                    break
                frames.append(frame)
                size += len(frame)
        return frames

    def _floor(self, seq: int) -> int:
        """Return the first seq of the batch that holds `seq`."""
        select = "SELECT max(first_seq) FROM batches WHERE first_seq <= ?"
        found = self._connection.execute(select, (seq,)).fetchone()[0]
        return seq if found is None else int(found)

    def _add_tally(self, delta: TallyDelta) -> TallyDelta:
        select = "SELECT symbol, day, rows, first_seq, last_seq, checksum FROM tallies WHERE symbol = ? AND day = ?"
        row = self._connection.execute(select, (delta.symbol, delta.day)).fetchone()
        total = _tally(row).plus(delta) if row else delta
        self._connection.execute(
            "INSERT OR REPLACE INTO tallies VALUES (?, ?, ?, ?, ?, ?)",
            (total.symbol, total.day, total.rows, total.first_seq, total.last_seq, total.checksum - SIGN),
        )
        return total

    def _write_cursors(self, cursors: Mapping[str, CursorState]) -> None:
        self._connection.executemany(
            "INSERT OR REPLACE INTO cursors VALUES (?, ?, ?, ?, ?)",
            [(name, c.time_msc, c.count, c.prefix_rows, c.prefix_digest) for name, c in cursors.items()],
        )

    def _write_meta(self, name: str, value: str) -> None:
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with readable_errors(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def _tally(row: tuple[str, int, int, int, int, int]) -> TallyDelta:
    symbol, day, rows, first_seq, last_seq, checksum = row
    return TallyDelta(symbol, day, rows, first_seq, last_seq, checksum + SIGN)
