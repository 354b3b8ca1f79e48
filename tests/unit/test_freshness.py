"""Which writes take a kept answer's hold, decided without a store."""

import pytest

from core.market import freshness
from core.market.freshness import Followed, marks_within, shrunk, stands, untouched
from core.model.freshness import MS_PER_DAY, TIME_MS_MAX, Change, Reach, Stamp, reach

DAY = 20_000  # 2024-10-04
WITHIN = Reach(symbol="EURUSD", start_ms=DAY * MS_PER_DAY, stop_ms=(DAY + 3) * MS_PER_DAY - 1)


def followed(*changes: Change, base: tuple[int, int] = (1, 10)) -> Followed:
    one = Followed(base=base, newest=base, months={})
    one.add(changes)
    return one


def change(day: int, seq: int, symbol: str | None = "EURUSD", epoch: int = 1) -> Change:
    return Change(source="demo", position=(epoch, seq), symbol=symbol, day=day)


@pytest.mark.parametrize(
    ("found", "holds"),
    [
        (change(DAY - 1, 20), True),
        (change(DAY, 20), False),
        (change(DAY + 2, 20), False),
        (change(DAY + 3, 20), True),
        (change(DAY, 20, symbol="GBPUSD"), True),
        (change(DAY, 20, symbol=None), True),
        (change(DAY, 15), True),
        (change(DAY, 1, epoch=2), False),
    ],
)
def test_only_later_rows_of_its_symbol_and_days_end_an_answer(found: Change, holds: bool) -> None:
    assert followed(found).untouched((1, 15), WITHIN) is holds


def test_any_symbol_ends_an_answer_about_all() -> None:
    assert not followed(change(DAY, 20, symbol="GBPUSD")).untouched((1, 15), Reach())


def test_what_is_stamped_before_we_followed_is_not_known_to_hold() -> None:
    assert not followed().untouched((1, 9), WITHIN)
    assert followed().untouched((1, 10), WITHIN)


def test_at_too_many_changes_it_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshness, "CHANGES_MAX", 3)
    one = followed(*(change(DAY + 10 + number, 20 + number) for number in range(4)))
    assert one.base == one.newest == (1, 23)
    assert not one.untouched((1, 22), WITHIN)
    assert one.untouched((1, 23), WITHIN)


def test_only_months_within_reach_count() -> None:
    months = {202409: (1, 1), 202410: (5, 50), 202411: (2, 20), 0: (9, 9)}
    assert marks_within(months, WITHIN) == {202410: (5, 50)}
    stamp = Stamp(months={202410: (5, 50)}, positions={})
    assert stands(stamp, WITHIN, months)
    assert stands(stamp, WITHIN, {202410: (5, 50), 202411: (3, 30)})
    assert not stands(stamp, WITHIN, {202410: (6, 50)})
    assert not stands(stamp, WITHIN, {})


@pytest.mark.parametrize("now", [{}, {202410: (4, 50)}, {202410: (5, 49)}, {202411: (9, 90)}])
def test_rows_that_have_gone_are_noticed(now: dict[int, tuple[int, int]]) -> None:
    assert shrunk({202410: (5, 50)}, now)
    stamp = Stamp(months={202410: (5, 50)}, positions={"demo": (1, 10)})
    assert not untouched(stamp, WITHIN, ["demo"], {"demo": followed()}, now)


def test_an_answer_of_several_sources_holds_only_if_each_is_known_not_to_have_changed() -> None:
    stamp = Stamp(months={}, positions={"demo": (1, 10), "other": (1, 10)})
    quiet, moved = followed(), followed(change(DAY, 20))
    assert untouched(stamp, WITHIN, ["demo", "other"], {"demo": quiet, "other": quiet}, {})
    assert not untouched(stamp, WITHIN, ["demo", "other"], {"demo": quiet, "other": moved}, {})
    assert not untouched(stamp, WITHIN, ["demo", "other"], {"demo": quiet}, {})
    assert not untouched(stamp, WITHIN, ["demo", "third"], {"demo": quiet, "third": quiet}, {})


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        (None, None, (0, TIME_MS_MAX)),
        (-(2**63), 2**63 - 1, (0, TIME_MS_MAX)),
        (5, 7, (5, 7)),
    ],
)
def test_a_reach_never_leaves_the_times_a_tick_can_have(
    start: int | None, stop: int | None, expected: tuple[int, int]
) -> None:
    found = reach("EURUSD", start, stop)
    assert (found.start_ms, found.stop_ms) == expected
