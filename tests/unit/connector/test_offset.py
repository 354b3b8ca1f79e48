"""The clock's offset: measured on moving ticks, snapped, slow to change, never guessed."""

import pytest

from bridge.connector.offset import OffsetMeter
from core.model.ticks import UTC_OFFSET_UNKNOWN

NOW = 1_700_000_000.0


def watch(
    meter: OffsetMeter, offset_s: float, start_s: float = NOW, count: int = 3, lag_s: float = 0.2
) -> list[bool]:
    return [
        meter.observe(int((start_s + 2 * i + offset_s - lag_s) * 1_000), start_s + 2 * i)
        for i in range(count)
    ]


@pytest.mark.parametrize("offset_s", [0, 7_200, 10_800, -18_000, 20_700, 19_800, -12_600])
def test_it_snaps_to_a_quarter_of_an_hour(offset_s):
    meter = OffsetMeter()
    watch(meter, offset_s)
    assert meter.offset_s == offset_s


def test_it_is_unknown_until_several_ticks_agree():
    meter = OffsetMeter()
    watch(meter, 7_200, count=2)
    assert meter.offset_s == UTC_OFFSET_UNKNOWN
    assert watch(meter, 7_200, NOW + 10, count=1) == [True]


def test_old_ticks_are_no_measurement():
    meter = OffsetMeter()
    watch(meter, 7_200, lag_s=300, count=20)
    assert meter.offset_s == UTC_OFFSET_UNKNOWN


def test_absurd_offsets_are_refused():
    meter = OffsetMeter()
    watch(meter, 15 * 3_600, count=20)
    assert meter.offset_s == UTC_OFFSET_UNKNOWN


def test_one_odd_tick_does_not_change_it():
    meter = OffsetMeter()
    watch(meter, 7_200)
    watch(meter, 10_800, NOW + 4_000, count=1)
    watch(meter, 7_200, NOW + 4_010)
    assert meter.offset_s == 7_200


def test_daylight_saving_is_noticed_within_the_hour():
    meter = OffsetMeter()
    watch(meter, 7_200)
    assert watch(meter, 10_800, NOW + 100) == [False] * 3
    assert watch(meter, 10_800, NOW + 3_700) == [False, False, True]
    assert meter.offset_s == 10_800


def test_a_declared_offset_wins():
    meter = OffsetMeter(-10_800)
    watch(meter, 7_200)
    assert meter.offset_s == -10_800


def test_an_earlier_runs_offset_is_recalled_for_a_day():
    meter = OffsetMeter()
    meter.recall(7_200, int(NOW) - 2 * 86_400, NOW)
    assert meter.offset_s == UTC_OFFSET_UNKNOWN
    meter.recall(7_200, int(NOW) - 3_600, NOW)
    assert meter.offset_s == 7_200
    watch(meter, 10_800, NOW + 10)
    assert meter.offset_s == 10_800
