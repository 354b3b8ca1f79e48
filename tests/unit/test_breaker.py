"""The circuit breaker on a clock of the test's own."""

import pytest

from core.model.breaker import Breaker


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def broken(clock: Clock) -> Breaker:
    breaker = Breaker(failures_max=3, pause_s=1.0, now=clock)
    for _ in range(3):
        assert breaker.admit()
        breaker.failed()
    return breaker


def test_one_failure_too_few_leaves_it_closed(clock: Clock) -> None:
    breaker = Breaker(failures_max=3, pause_s=1.0, now=clock)
    for _ in range(2):
        breaker.failed()
    assert breaker.admit()
    breaker.succeeded()
    for _ in range(2):
        breaker.failed()
    assert breaker.admit()


def test_after_so_many_failures_everybody_is_refused_at_once(clock: Clock) -> None:
    breaker = broken(clock)
    clock.now_s = 0.99
    assert not breaker.admit()
    assert breaker.is_open


def test_after_the_pause_one_tries_alone(clock: Clock) -> None:
    breaker = broken(clock)
    clock.now_s = 1.0
    assert [breaker.admit() for _ in range(3)] == [True, False, False]


def test_a_try_that_goes_well_lets_everybody_in(clock: Clock) -> None:
    breaker = broken(clock)
    clock.now_s = 1.0
    assert breaker.admit()
    breaker.succeeded()
    assert [breaker.admit() for _ in range(3)] == [True, True, True]


def test_a_try_that_fails_is_followed_by_another_pause(clock: Clock) -> None:
    breaker = broken(clock)
    clock.now_s = 5.0
    assert breaker.admit()
    breaker.failed()
    clock.now_s = 5.9
    assert not breaker.admit()
    clock.now_s = 6.0
    assert breaker.admit()


def test_a_try_nobody_hears_of_again_is_not_waited_for_for_ever(clock: Clock) -> None:
    breaker = broken(clock)
    clock.now_s = 1.0
    assert breaker.admit()
    clock.now_s = 2.0
    assert breaker.admit()
