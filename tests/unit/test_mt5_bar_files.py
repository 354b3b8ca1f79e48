"""MT5's bar CSV: every value of a bar reads back, wherever pages end, and the spread is in whole points."""

import csv
import io
import itertools
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.market.mt5_bar_files import BarCsvFile
from tests.mt5_bars import read_bars

DAY_MS = 86_400_000
COLUMNS = ("time_ms", "open", "high", "low", "close", "tick_volume", "volume", "spread_min")
PRICES = st.one_of(
    st.floats(min_value=1e-7, max_value=1e7, allow_nan=False),
    st.integers(1, 10**7).map(lambda n: n / 100_000),
)
ROWS = st.lists(
    st.tuples(
        st.integers(-(10**6), 10**6),
        *[PRICES] * 4,
        st.integers(1, 10**6),
        st.floats(min_value=0, max_value=1e7),
        st.one_of(st.none(), st.integers(-50, 10_000)),
    ),
    min_size=1,
    max_size=40,
)


def page(rows: list[tuple[Any, ...]]) -> bytes:
    ints, floats = pa.int64(), pa.float64()
    types = (ints, floats, floats, floats, floats, pa.uint64(), floats, floats)
    schema = pa.schema(zip(COLUMNS, types, strict=True))
    table = pa.table([list(column) for column in zip(*rows, strict=True)] or [[]] * 8, schema=schema)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


@settings(max_examples=200, deadline=None)
@given(rows=ROWS, cuts=st.lists(st.integers(1, 39), max_size=4), daily=st.booleans())
def test_what_is_written_reads_back_exactly_wherever_pages_end(
    rows: list[tuple[Any, ...]], cuts: list[int], daily: bool
) -> None:
    step_ms = DAY_MS if daily else 1_000
    points = [row[-1] for row in rows]
    rows = [
        (row[0] * step_ms % (20_000 * DAY_MS), *row[1:7], row[7] and round(row[7] / 1e5, 10)) for row in rows
    ]
    file = BarCsvFile(daily=daily, digits=5)
    edges = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    text = b"".join(file.add(page(rows[start:stop])) for start, stop in itertools.pairwise(edges))
    assert [tuple(bar[name] for name in COLUMNS[:7]) for bar in read_bars(text)] == [row[:7] for row in rows]
    assert [bar["spread"] for bar in read_bars(text)] == [spread or 0 for spread in points]


@pytest.mark.parametrize("daily", [False, True])
def test_it_looks_as_the_terminal_writes_it(daily: bool) -> None:
    time_ms = 1_704_153_600_000 if daily else 1_704_186_000_000
    file = BarCsvFile(daily=daily)
    text = file.add(page([(time_ms, 1.10421, 1.10433, 1.10405, 1.1, 12, 0.0, 0.00006)])) + file.finish()
    head, line = next(csv.reader(io.StringIO(text.decode()), delimiter="\t")), text.decode().splitlines()[1]
    assert ("<TIME>" in head, head[-3:]) == (not daily, ["<TICKVOL>", "<VOL>", "<SPREAD>"])
    times = "2024.01.02" if daily else "2024.01.02\t09:00:00"
    assert line == f"{times}\t1.10421\t1.10433\t1.10405\t1.1\t12\t0\t6"


def test_an_export_without_bars_is_its_header() -> None:
    file = BarCsvFile(daily=True)
    head = b"<DATE>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>\n"
    assert file.add(page([])) + file.finish() == head


def test_an_empty_first_page_tells_no_digits() -> None:
    file = BarCsvFile(daily=False)
    text = file.add(page([])) + file.add(page([(0, 1.5, 1.5, 1.5, 1.25, 1, 0.0, 0.03)]))
    assert [bar["spread"] for bar in read_bars(text)] == [3]


def test_prices_between_points_do_not_tell_the_digits() -> None:
    rows = [(0, 1.00005, 1.00015, 1.00005, 1.00005, 4, 0.0, 0.0001)]
    assert BarCsvFile(daily=False, halved=True).add(page(rows)).endswith(b"\t1\n")
    assert BarCsvFile(daily=False).add(page(rows)).endswith(b"\t10\n")
