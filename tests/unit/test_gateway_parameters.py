"""Times, days and cursors from outside."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from core.adapters.clickhouse.cursors import BarCursor, TickCursor, read_cursor, write_cursor
from core.errors.exceptions import Invalid
from core.messages.jobs import BarQuery
from gateway.parameters import parse, parse_day, parse_time
from gateway.problems import Unfit


@pytest.mark.parametrize(
    ("text", "epoch_ms"),
    [
        ("0", 0),
        ("-5", -5),
        ("1728000001000", 1_728_000_001_000),
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:00.001z", 1),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T01:00:00 01:00", 0),
        ("1969-12-31T23:59:59.999Z", -1),
        ("2024-10-04 00:00:02.5Z", 1_728_000_002_500),
    ],
)
def test_a_time_is_rfc_3339_or_epoch_milliseconds(text: str, epoch_ms: int) -> None:
    assert parse_time(text) == epoch_ms


@pytest.mark.parametrize(
    "text", ["", "now", "1.5", "2024-01-01", "2024-01-01T00:00:00", "1" * 19, "２", "0x10"]
)
def test_anything_else_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_time(text)


def test_a_day_counts_from_1970() -> None:
    assert parse_day("1970-01-02") == 1
    with pytest.raises(ValueError, match="YYYY-MM-DD"):
        parse_day("tomorrow")


@given(
    st.integers(-(2**63), 2**63 - 1),
    st.text(max_size=63),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
)
def test_a_cursor_reads_back(time_msc: int, source: str, epoch: int, seq: int) -> None:
    cursor = TickCursor(time_msc, source, epoch, seq)
    assert read_cursor(write_cursor(cursor), TickCursor) == cursor


@given(st.text(max_size=100))
def test_a_made_up_cursor_is_invalid_and_nothing_worse(text: str) -> None:
    with contextlib.suppress(Invalid):
        assert isinstance(read_cursor(text, TickCursor), TickCursor)


def test_a_cursor_of_another_list_is_refused() -> None:
    with pytest.raises(Invalid):
        read_cursor(write_cursor(BarCursor(1, "a")), TickCursor)


def test_a_word_that_is_none_of_ours_is_answered_with_those_that_are() -> None:
    request = Request({"type": "http", "query_string": b"symbol=EURUSD&price=high", "headers": []})
    with pytest.raises(Unfit) as refused:
        parse(request, BarQuery)
    assert refused.value.problems == {"price": "is one of auto, bid, ask, mid, last"}
