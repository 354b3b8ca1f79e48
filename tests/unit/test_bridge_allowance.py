"""What one peer of the bridge may do how often."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.allowance import Allowance


def test_exactly_the_burst_is_allowed_and_one_more_after_its_time() -> None:
    allowance = Allowance(burst=3, per_s=2.0)
    assert [allowance.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert not allowance.take(100.4)
    assert allowance.take(100.6)
    assert not allowance.take(100.6)


@given(
    burst=st.integers(1, 50),
    per_s=st.integers(1, 20),
    pauses_s=st.lists(st.floats(0, 2), min_size=1, max_size=200),
)
def test_never_more_than_the_burst_and_what_time_gave(burst: int, per_s: int, pauses_s: list[float]) -> None:
    allowance, at_s, taken = Allowance(burst=burst, per_s=per_s), 1_000.0, 0
    for pause_s in pauses_s:
        at_s += pause_s
        taken += allowance.take(at_s)
        assert taken <= burst + (at_s - 1_000.0) * per_s + 1e-6
