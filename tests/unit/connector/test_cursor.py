"""The cursor: every row once and in order, whatever the poll interval and the page size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.connector.cursor import PREFIX_UNKNOWN, Cursor, CursorState, start_at
from bridge.connector.recording import load
from tests.unit.connector.tapes import Tape, data_file, poll_all, ticks


@pytest.fixture(scope="module")
def win():
    return load(data_file("mt5_win_ticks.ndjson"))["WIN$N"].rows


INTERVALS_MS = [
    1,
    2,
    3,
    5,
    7,
    10,
    16.7,
    25,
    33,
    50,
    77,
    100,
    150,
    250,
    400,
    500,
    777,
    1_000,
    1_300,
    1_999,
    2_000,
    2_500,
]


@pytest.mark.parametrize("interval_ms", INTERVALS_MS)
def test_a_real_recording_is_complete_at_every_poll_interval(win, interval_ms):
    got = poll_all(Tape(win), interval_ms, 4_096)
    assert len(got) == 1_500
    assert got.tobytes() == win.tobytes()


@pytest.mark.parametrize("page_rows", [2, 3, 5, 16, 17, 100, 512, 4_096])
@pytest.mark.parametrize("interval_ms", [20, 900])
def test_a_real_recording_is_complete_at_every_page_size(win, interval_ms, page_rows):
    assert poll_all(Tape(win), interval_ms, page_rows).tobytes() == win.tobytes()


def test_identical_rows_are_all_kept(win):
    got = poll_all(Tape(win), 50, 64)
    packed = [row.tobytes() for row in got]
    assert len(packed) - len(set(packed)) == 7


@st.composite
def tapes(draw):
    """Shared milliseconds, identical rows, seconds with more rows than a page, quiet gaps."""
    gaps = draw(st.lists(st.sampled_from([0, 0, 0, 1, 3, 40, 999, 1_000, 61_000]), min_size=1, max_size=120))
    times = np.cumsum(gaps) + 1_700_000_000_000 + draw(st.integers(0, 999))
    prices = draw(st.lists(st.sampled_from([1.0, 1.1]), min_size=len(gaps), max_size=len(gaps)))
    return ticks(times.tolist(), prices)


@settings(max_examples=150, deadline=None)
@given(
    tape=tapes(),
    interval_ms=st.sampled_from([1.0, 7.0, 500.0, 5_000.0]),
    page_rows=st.integers(1, 9),
    catchup=st.sampled_from([0, 64]),
)
def test_any_tape_is_complete(tape, interval_ms, page_rows, catchup):
    interval_ms = max(interval_ms, (tape["time_msc"][-1] - tape["time_msc"][0]) / 1_500)
    assert poll_all(Tape(tape), interval_ms, page_rows, catchup=catchup).tobytes() == tape.tobytes()


@settings(max_examples=150, deadline=None)
@given(tape=tapes(), cut=st.integers(0, 119), page_rows=st.integers(1, 9), forget=st.booleans())
def test_a_reader_that_is_started_again_goes_on_where_it_was(tape, cut, page_rows, forget):
    cut = min(cut, len(tape) - 1)
    newest = int(tape["time_msc"][cut])
    # The store knows (time, count); the spool knows the prefix as well.
    first = Cursor(start_at(newest // 1_000), 10_000)
    seen = tape[: cut + 1]
    step = first.read(seen[seen["time_msc"] >= newest // 1_000 * 1_000])
    state = CursorState(time_msc=step.state.time_msc, count=step.state.count) if forget else step.state
    assert (state.prefix_rows == PREFIX_UNKNOWN) == forget
    got = poll_all(Tape(tape), 500.0, page_rows, state) if cut < len(tape) - 1 else tape[:0]
    assert got.tobytes() == tape[cut + 1 :].tobytes()


def test_a_full_page_without_news_doubles_the_page():
    tape = ticks([1_700_000_000_000] * 50)
    cursor = Cursor(start_at(1_700_000_000), 8)
    pages = []
    step = None
    while step is None or step.again:
        pages.append(cursor.page)
        step = cursor.read(tape[: cursor.page])
        cursor.commit(step)
    assert pages == [8, 8, 16, 16, 32, 32, 64]
    assert cursor.state.count == 50


def changed(cursor: Cursor, history):
    """Read until the cursor has made up its mind; return all it delivered and what it said."""
    rows, said = [], ""
    for _ in range(4):
        step = cursor.read(history)
        cursor.commit(step)
        rows.append(step.rows)
        said = said or step.revised
    return np.concatenate(rows), said


@pytest.fixture
def reader():
    cursor = Cursor(start_at(1_700_000_000), 100)
    first = ticks([1_700_000_000_100, 1_700_000_000_100, 1_700_000_000_300], [1.0, 1.1, 1.2])
    cursor.commit(cursor.read(first))
    return cursor, first


def test_a_revised_row_is_told_and_not_doubled(reader):
    cursor, first = reader
    revised = first.copy()
    revised["bid"][1] = 9.9
    rows, said = changed(cursor, revised)
    assert not len(rows)
    assert "1 altered" in said


def test_a_late_row_in_the_current_second_is_delivered(reader):
    cursor, first = reader
    late = ticks([1_700_000_000_200], [7.0])
    rows, said = changed(cursor, np.concatenate((first[:2], late, first[2:])))
    assert rows.tobytes() == late.tobytes()
    assert "1 late" in said


def test_news_behind_a_revised_second_is_delivered(reader):
    cursor, first = reader
    revised = first.copy()
    revised["bid"][0] = 9.9
    news = ticks([1_700_000_000_300, 1_700_000_004_000], [3.0, 4.0])
    rows, said = changed(cursor, np.concatenate((revised, news)))
    assert rows.tobytes() == news.tobytes()
    assert said


def test_one_glitched_answer_changes_nothing(reader):
    cursor, first = reader
    step = cursor.read(np.concatenate((first[:1], first)))
    assert not len(step.rows)
    assert not step.revised
    assert step.again
    rows, said = changed(cursor, first)
    assert not len(rows)
    assert not said


def test_a_shorter_answer_is_no_news(reader):
    cursor, first = reader
    rows, said = changed(cursor, first[:1])
    assert not len(rows)
    assert not said


def test_rows_from_before_the_second_asked_for_are_skipped(reader):
    cursor, first = reader
    news = ticks([1_700_000_001_000])
    rows, said = changed(cursor, np.concatenate((ticks([1_699_999_999_000]), first, news)))
    assert rows.tobytes() == news.tobytes()
    assert not said


def test_what_is_not_committed_is_read_again(reader):
    cursor, first = reader
    history = np.concatenate((first, ticks([1_700_000_000_400])))
    assert len(cursor.read(history).rows) == 1
    assert len(cursor.read(history).rows) == 1


def test_many_late_rows_in_front_need_a_larger_page():
    cursor = Cursor(start_at(1_700_000_000), 4)
    first = ticks([1_700_000_000_500, 1_700_000_000_500], [1.0, 2.0])
    cursor.commit(cursor.read(first))
    late = ticks(list(range(1_700_000_000_000, 1_700_000_000_020)), [float(i + 3) for i in range(20)])
    history = np.concatenate((late, first, ticks([1_700_000_000_600])))
    rows = []
    for _ in range(12):
        step = cursor.read(history[: cursor.page])
        cursor.commit(step)
        rows.append(step.rows)
    assert np.concatenate(rows).tobytes() == np.concatenate((late, history[-1:])).tobytes()


def test_a_history_that_loses_its_end_and_finds_it_again_doubles_nothing(reader):
    cursor, first = reader
    late = ticks([1_700_000_000_150])
    rows, said = changed(cursor, np.concatenate((first[:2], late)))
    assert rows.tobytes() == late.tobytes()
    assert said
    news = ticks([1_700_000_000_900])
    rows, _ = changed(cursor, np.concatenate((first[:2], late, first[2:], news)))
    assert rows.tobytes() == news.tobytes()
