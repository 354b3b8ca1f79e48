"""The W3C trace context: which callers' hops are heeded, and what is passed on."""

import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.telemetry import tracing

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
WRITTEN = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]")


@pytest.fixture(autouse=True, scope="module")
def _leaves_no_trace() -> Iterator[None]:
    before = tracing.CURRENT.get()
    yield
    tracing.CURRENT.set(before)


@pytest.mark.parametrize(
    ("traceparent", "flags"),
    [
        (f"00-{TRACE}-{SPAN}-01", "01"),
        (f"00-{TRACE}-{SPAN}-00", "00"),
        (f"00-{TRACE}-{SPAN}-ff", "01"),
        (f"00-{TRACE}-{SPAN}-02", "00"),
        (f"01-{TRACE}-{SPAN}-01", "01"),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-brings", "01"),
        (f"fe-{TRACE}-{SPAN}-00-", "00"),
    ],
)
def test_a_callers_trace_goes_on_with_a_hop_of_ours(traceparent: str, flags: str) -> None:
    trace = tracing.start(traceparent)
    assert (trace.trace_id, trace.flags) == (TRACE, flags)
    assert trace.span_id != SPAN
    assert tracing.current_traceparent() == f"00-{TRACE}-{trace.span_id}-{flags}"


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "garbage",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01-",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01.more",
        f"cc-{TRACE}-{SPAN}-0100",
        f"0-{TRACE}-{SPAN}-01",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00_{TRACE}_{SPAN}_01",
    ],
)
def test_a_hop_that_is_none_is_replaced(traceparent: str) -> None:
    assert tracing.start(traceparent).trace_id not in {TRACE, "0" * 32}


@given(st.text(max_size=80) | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}.{0,5}"))
def test_whatever_comes_in_what_goes_out_is_well_formed(traceparent: str) -> None:
    assert WRITTEN.fullmatch(tracing.start(traceparent).traceparent)
