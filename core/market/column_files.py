"""Files of ticks or bars made of pages that come one after the other, holding one page at a time.

Text needs no making: the store writes its lines. This module loads pyarrow, some 60 MB: only who writes columns
imports it, through the Import Manager.
"""

import io
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

COMPRESSION: Final = "zstd"
COMPRESSION_LEVEL: Final = 1
DICTIONARIES: Final = ["symbol", "source"]
"""Of all columns only these repeat; for the others a dictionary is tried in vain, page after page."""

# Exports run beside interactive reads, each in a thread of its own.
pa.set_cpu_count(1)
pa.set_io_thread_count(1)
# An arena keeps what a page needed; the C library gives it back.
pa.set_memory_pool(pa.system_memory_pool())


class _Sink(io.RawIOBase):
    """Keeps what is written to it until it is taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._position = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._parts.append(part)
        self._position += len(part)
        return len(part)

    def tell(self) -> int:
        return self._position

    def take(self) -> bytes:
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken


class ArrowFile:
    """An Arrow stream. add: takes a page, itself an Arrow stream, and returns what of the file is ready."""

    def __init__(self) -> None:
        self._sink = _Sink()
        self._writer: Any = None

    def add(self, page: bytes) -> bytes:
        with pa.ipc.open_stream(page) as reader:
            if self._writer is None:
                self._writer = self._open(reader.schema)
            self._write(reader)
        return self._sink.take()

    def finish(self) -> bytes:
        """Return the end of the file."""
        if self._writer is not None:
            self._writer.close()
        return self._sink.take()

    def _open(self, schema: pa.Schema) -> Any:
        return pa.ipc.new_stream(self._sink, schema)

    def _write(self, reader: Any) -> None:
        for batch in reader:
            self._writer.write_batch(batch)


class ParquetFile(ArrowFile):
    """A Parquet file with a row group a page."""

    def _open(self, schema: pa.Schema) -> Any:
        return pq.ParquetWriter(
            self._sink,
            schema,
            compression=COMPRESSION,
            compression_level=COMPRESSION_LEVEL,
            use_dictionary=DICTIONARIES,
        )

    def _write(self, reader: Any) -> None:
        table = reader.read_all()
        if table.num_rows:
            self._writer.write_table(table, row_group_size=table.num_rows)
