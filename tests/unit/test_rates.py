"""A sliding window's arithmetic, and how limits are written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors.exceptions import Misconfigured
from core.model.rates import Rate
from core.settings import LimitsSettings
from gateway.limits import NOBODY, declared, network

RATES = st.builds(
    Rate, group=st.just("read"), count=st.integers(1, 10_000), period_s=st.sampled_from([1, 60, 3_600])
)
LEASES = st.lists(st.tuples(st.integers(1, 500), st.floats(0, 0.999)), max_size=60)


@given(rate=RATES, leases=LEASES, previous=st.integers(0, 20_000))
def test_leases_of_one_window_never_exceed_what_the_last_one_leaves(
    rate: Rate, leases: list[tuple[int, float]], previous: int
) -> None:
    total = used = 0
    for asked, elapsed in sorted(leases, key=lambda lease: lease[1]):
        at_s = elapsed * rate.period_s
        total += asked
        granted = rate.granted(asked, total, previous, at_s)
        total -= asked - granted
        used += granted
        assert 0 <= granted <= asked
        assert granted == 0 or used + rate.carried(previous, at_s) <= rate.count


@given(rate=RATES, asked=st.lists(st.integers(1, 500), max_size=40), late=st.randoms())
def test_excess_that_is_given_back_late_admits_no_more(rate: Rate, asked: list[int], late: object) -> None:
    # Nobody has given anything back yet: the counter is above what was granted.
    total = used = 0
    for one in asked:
        total += one
        used += rate.granted(one, total, 0, 0.0)
    assert used <= rate.count


@given(rate=RATES, previous=st.integers(0, 20_000), elapsed=st.floats(0, 0.999))
def test_a_full_window_has_room_again_when_it_says(rate: Rate, previous: int, elapsed: float) -> None:
    at_s = elapsed * rate.period_s
    assert at_s < rate.next_room_s(previous, at_s) <= 2 * rate.period_s


def test_what_a_burst_used_is_not_to_be_had_again_right_after_the_window() -> None:
    rate = Rate(group="read", count=100, period_s=60)
    assert rate.granted(100, 100, 100, 60.0) == 0
    assert rate.granted(100, 100, 100, 90.0) == 50


def test_limits_are_written_as_slowapi_writes_them() -> None:
    rates = declared(LimitsSettings(read="600/minute;50/second"))["read"]
    assert {(rate.count, rate.period_s) for rate in rates} == {(600, 60), (50, 1)}


@pytest.mark.parametrize("text", ["", "many", "0/minute", "10/fortnight"])
def test_what_is_no_limit_refuses_to_start(text: str) -> None:
    with pytest.raises(Misconfigured, match=r"limits\.read"):
        declared(LimitsSettings(read=text))


def test_addresses_of_one_ipv6_subscriber_count_as_one() -> None:
    assert network("2001:db8:1:2::1") == network("2001:db8:1:2:ffff::9") != network("2001:db8:1:3::1")
    assert network("::ffff:192.0.2.1") == network("192.0.2.1") != network("192.0.2.2")
    assert network("testclient") == NOBODY
