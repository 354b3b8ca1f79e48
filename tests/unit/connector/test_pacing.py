"""How often a terminal is asked: not more often than its server wants, and never for ever less often."""

from bridge.connector.pacing import EASED_AFTER, PAUSE_S_MAX, PAUSE_S_MIN, Pace


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_nobody_waits_before_it_is_said() -> None:
    pace = Pace(Clock())
    for _ in range(100):
        pace.taken()
        assert pace.wait_s() == 0.0


def test_each_time_it_is_said_one_waits_twice_as_long_up_to_the_longest() -> None:
    pace = Pace(Clock())
    waits = []
    for _ in range(7):
        pace.refused()
        waits.append(round(pace.wait_s(), 6))
    assert waits[:3] == [PAUSE_S_MIN, 2 * PAUSE_S_MIN, 4 * PAUSE_S_MIN]
    assert waits[-1] == PAUSE_S_MAX


def test_waiting_ends() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.refused()
    clock.now_s += 2 * PAUSE_S_MIN
    assert pace.wait_s() == 0.0


def test_what_is_taken_brings_the_next_one_nearer_until_nobody_waits() -> None:
    pace = Pace(Clock())
    for _ in range(3):
        pace.refused()
    pauses = []
    for _ in range(4 * EASED_AFTER):
        pace.taken()
        pauses.append(pace.pause_s)
    assert sorted(pauses, reverse=True) == pauses
    assert pauses[-1] == pace.wait_s() == 0.0


def test_one_that_is_taken_between_two_that_are_not_changes_nothing() -> None:
    pace = Pace(Clock())
    pace.refused()
    for _ in range(EASED_AFTER - 1):
        pace.taken()
    pace.refused()
    assert pace.pause_s == 2 * PAUSE_S_MIN
