"""Rows added to the past are found, once."""

import numpy as np

from bridge.connector.late_rows import REMEMBERED_ROWS_MAX, RecentRows
from tests.unit.connector.tapes import ticks

BASE = 1_700_000_000_000


def remembered(*parts):
    recent = RecentRows(BASE, nothing_delivered=True)
    for part in parts:
        recent.add(part)
    return recent


def test_the_same_history_says_nothing():
    rows = ticks([BASE, BASE, BASE + 5], [1.0, 1.0, 2.0])
    added, altered = remembered(rows).compare(rows, BASE, BASE + 1_000)
    assert not len(added)
    assert not altered


def test_added_rows_are_told_from_those_of_the_same_millisecond():
    before = ticks([BASE, BASE], [1.0, 2.0])
    after = ticks([BASE, BASE, BASE, BASE + 1], [1.0, 1.5, 2.0, 3.0])
    added, altered = remembered(before).compare(after, BASE, BASE + 1_000)
    assert added.tobytes() == after[[1, 3]].tobytes()
    assert not altered


def test_an_altered_row_is_counted_and_not_delivered():
    before, after = ticks([BASE], [1.0]), ticks([BASE], [2.0])
    added, altered = remembered(before).compare(after, BASE, BASE + 1_000)
    assert not len(added)
    assert altered == 1


def test_a_missing_row_is_an_alteration():
    added, altered = remembered(ticks([BASE, BASE + 1])).compare(ticks([BASE]), BASE, BASE + 1_000)
    assert not len(added)
    assert altered == 1


def test_the_order_of_delivery_does_not_matter():
    rows = ticks([BASE, BASE + 1, BASE + 2], [1.0, 2.0, 3.0])
    added, altered = remembered(rows[[0, 2]], rows[[1]]).compare(rows, BASE, BASE + 1_000)
    assert not len(added)
    assert not altered


def test_where_nothing_is_remembered_nothing_is_said():
    recent = RecentRows(BASE + 500, nothing_delivered=False)
    added, altered = recent.compare(ticks([BASE + 600]), BASE, BASE + 1_000)
    assert not len(added)
    assert not altered


def test_the_memory_is_bounded_and_stays_whole_seconds():
    rows = ticks((BASE + np.arange(REMEMBERED_ROWS_MAX * 2) // 3).tolist())
    recent = remembered(*np.array_split(rows, 40))
    from_ms, to_ms = recent.window()
    assert from_ms % 1_000 == 0
    assert from_ms > BASE
    added, altered = recent.compare(rows, from_ms, to_ms)
    assert not len(added)
    assert not altered
