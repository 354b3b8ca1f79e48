"""MT5's tick CSV: what is written reads back as the same ticks, and writing those again gives the same bytes."""

import io
import itertools
from pathlib import PurePath
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.connector.recording_export import read_export
from core.market.mt5_files import HEADER, TickCsvFile

NAME = PurePath("EURUSD.csv")
PRICES = st.one_of(
    st.sampled_from([0.0, 1.1, 1.10001, 1.2]),
    st.floats(min_value=0, max_value=1e7, allow_nan=False),
    st.integers(1, 10**7).map(lambda n: n / 100_000),
)
ROWS = st.lists(
    st.tuples(st.integers(0, 5_000), PRICES, PRICES, PRICES, PRICES, st.integers(0, 2_047)),
    min_size=1,
    max_size=60,
)


def written(rows: list[tuple[Any, ...]], cuts: list[int]) -> bytes:
    """Write rows of (time_msc, bid, ask, last, volume, flags), in pages that end at `cuts`."""
    file = TickCsvFile()
    edges = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    text = b"".join(file.add(page(rows[start:stop])) for start, stop in itertools.pairwise(edges))
    return text + file.finish()


def page(rows: list[tuple[Any, ...]]) -> bytes:
    time_msc, bid, ask, last, volume, flags = zip(*rows, strict=True)
    table = pa.table(
        {
            "time_msc": pa.array(time_msc, pa.int64()),
            "bid": pa.array(bid, pa.float64()),
            "ask": pa.array(ask, pa.float64()),
            "last": pa.array(last, pa.float64()),
            "volume": pa.array([int(v) for v in volume], pa.uint64()),
            "volume_real": pa.array(volume, pa.float64()),
            "flags": pa.array(flags, pa.uint32()),
        }
    )
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


@settings(max_examples=200, deadline=None)
@given(rows=ROWS, cuts=st.lists(st.integers(1, 59), max_size=4))
def test_what_is_written_reads_back_exactly_wherever_pages_end(
    rows: list[tuple[Any, ...]], cuts: list[int]
) -> None:
    base_ms = 1_704_067_200_000
    rows = sorted(((base_ms + row[0], *row[1:]) for row in rows), key=lambda row: row[0])
    text = written(rows, cuts)
    found = read_export(text, NAME).rows
    columns = [found[name] for name in ("time_msc", "bid", "ask", "last", "volume_real", "flags")]
    assert [tuple(row) for row in zip(*(column.tolist() for column in columns), strict=True)] == rows
    assert written(list(zip(*(column.tolist() for column in columns), strict=True)), []) == text


def test_it_looks_as_the_terminal_writes_it() -> None:
    start = 1_704_186_000_123
    rows = [
        (start, 1.1, 1.2, 0.0, 0.0, 6),
        (start, 1.1, 1.25, 0.0, 0.0, 4),
        (start + 877, 1.15, 1.25, 1.2, 3.0, 26),
    ]
    lines = [
        "2024.01.02\t09:00:00.123\t1.1\t1.2\t\t\t6\n",
        "2024.01.02\t09:00:00.123\t\t1.25\t\t\t4\n",
        "2024.01.02\t09:00:01.000\t1.15\t\t1.2\t3\t26\n",
    ]
    assert written(rows, [1]) == HEADER + "".join(lines).encode()


def test_a_volume_only_in_whole_numbers_is_kept() -> None:
    table = pa.ipc.open_stream(page([(0, 1.0, 1.0, 1.0, 7.0, 0)])).read_all()
    table = table.set_column(
        table.schema.get_field_index("volume_real"), "volume_real", pa.array(np.zeros(1))
    )
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    assert TickCsvFile().add(sink.getvalue()).endswith(b"\t1\t1\t1\t7\t0\n")
