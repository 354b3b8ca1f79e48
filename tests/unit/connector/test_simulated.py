"""The simulated broker: the same history after every restart, and a market's microstructure."""

import time

import numpy as np
import pytest

from bridge.connector import simulated
from bridge.connector.cursor import Cursor, start_at
from bridge.connector.microstructure import BLOCK_MS, INSTRUMENTS, Market
from bridge.connector.simulated import SimulatedTerminal
from core.errors.exceptions import Misconfigured

ANCHOR_S = 1_750_000_000
SERVER_MS = (ANCHOR_S + 10_800) * 1_000
END = 2**31 - 1


class Clock:
    def __init__(self, monkeypatch) -> None:
        self.now_ms = ANCHOR_S * 1_000
        monkeypatch.setattr(simulated.time, "time_ns", lambda: self.now_ms * 1_000_000)
        monkeypatch.setattr(simulated.time, "time", lambda: self.now_ms / 1_000)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def history(terminal: SimulatedTerminal, symbol: str = "EURUSD"):
    return terminal.copy_ticks_from(symbol, 1, 10**7, -1)


def test_a_restarted_terminal_serves_the_identical_history(tmp_path, clock):
    first = SimulatedTerminal({}, tmp_path)
    before = history(first)
    clock.now_ms += 3_600_000
    again = SimulatedTerminal({}, tmp_path)
    # Blocks made in another order, and only some of them.
    tail = again.copy_ticks_from("EURUSD", SERVER_MS // 1_000 - 60, 10**6, -1)
    after = history(again)
    assert after[: len(before)].tobytes() == before.tobytes()
    assert after[-len(tail) :].tobytes() == tail.tobytes()
    assert history(SimulatedTerminal({"seed": 2}, tmp_path)).tobytes() != after.tobytes()


def test_the_market_opens_before_the_first_start_after_a_weekend(tmp_path, clock):
    times = history(SimulatedTerminal({}, tmp_path))["time_msc"]
    gap = int(np.argmax(np.diff(times)))
    assert 48 * 3_600_000 <= times[gap + 1] - times[gap] < 48.1 * 3_600_000
    assert 14 * 60_000 < times[-1] - times[gap + 1] <= 15 * 60_000 + BLOCK_MS
    assert 9 * 60_000 < times[gap] - times[0] <= 10 * 60_000
    assert 0 <= SERVER_MS - times[-1] < 60_000


def test_ticks_appear_as_time_passes(tmp_path, clock):
    terminal = SimulatedTerminal({}, tmp_path)
    seen = len(history(terminal))
    clock.now_ms += 60_000
    rows = history(terminal)
    assert len(rows) > seen
    assert rows["time_msc"][-1] <= SERVER_MS + 60_000
    assert terminal.truth("EURUSD", 0, SERVER_MS + 60_001).tobytes() == rows.tobytes()


@pytest.mark.parametrize("symbol", list(INSTRUMENTS))
def test_a_day_of_ticks_looks_like_a_market(symbol):
    instrument = INSTRUMENTS[symbol]
    market = Market(seed=7, rate=7.0)
    rows = np.concatenate([market.block(instrument, 170_000_000 + at) for at in range(1_000)])
    times, scale = rows["time_msc"], 10**instrument.digits
    assert np.all(np.diff(times) >= 0)
    assert np.array_equal(rows["time"], times // 1_000)
    assert 0.75 * 7 * instrument.pace < len(rows) / 10_000 < 1.25 * 7 * instrument.pace
    _, sharing = np.unique(times, return_counts=True)
    assert sharing.max() >= 4
    assert (sharing > 1).mean() > 0.05
    per_second = np.bincount(rows["time"] - rows["time"][0])
    assert per_second.var() > 1.5 * per_second.mean(), "arrivals cluster"
    identical = sum(rows[i].tobytes() == rows[i + 1].tobytes() for i in range(5_000))
    assert 0 < identical < 1_000
    assert set(np.unique(rows["flags"])) == {2, 4, 6}
    spread = np.rint((rows["ask"] - rows["bid"]) * scale)
    assert spread.min() >= 1
    assert spread.max() > 2 * np.median(spread)
    for side in ("bid", "ask"):
        assert [float(f"{price:.{instrument.digits}f}") for price in rows[side][:3_000]] == rows[side][
            :3_000
        ].tolist()
    edges = np.flatnonzero(np.diff(times // BLOCK_MS)) + 1
    jumps = np.abs(np.diff(rows["bid"])) * scale
    assert jumps[edges - 1].max() <= max(jumps.max(), 1), "prices go on across blocks"
    assert jumps[edges - 1].mean() < 8 * jumps.mean()
    assert 0.97 < rows["bid"].min() / instrument.price < rows["bid"].max() / instrument.price < 1.03


def test_a_minute_is_made_in_milliseconds():
    market = Market(seed=1, rate=7.0)
    started = time.perf_counter()
    for name in INSTRUMENTS:
        for at in range(6):
            market.block(INSTRUMENTS[name], at)
    assert time.perf_counter() - started < 0.5


def test_unknown_options_are_refused(tmp_path):
    for options in ({"speed": 1}, {"symbols": ["ABC"]}, {"rate": 0}, {"faults": {"bad": 1}}):
        with pytest.raises(Misconfigured):
            SimulatedTerminal(options, tmp_path)


def read_with_faults(tmp_path, clock, faults, seconds=40, page_rows=64, options=None):
    terminal = SimulatedTerminal({"faults": faults, **(options or {})}, tmp_path)
    first_ms = SERVER_MS - 900_000 // BLOCK_MS * BLOCK_MS + 600_000
    cursor, got, said = Cursor(start_at(first_ms // 1_000), page_rows), [], []
    clock_end = clock.now_ms + seconds * 1_000
    while clock.now_ms < clock_end:
        clock.now_ms += 50
        answer = terminal.copy_ticks_from("EURUSD", cursor.date_from, cursor.page, -1)
        if answer is None:
            assert terminal.last_error()[0] < 0
            continue
        step = cursor.read(answer)
        cursor.commit(step)
        got.append(step.rows)
        said += [step.revised] if step.revised else []
    rows = np.concatenate(got)
    made_until = int(rows["time_msc"][-1])
    truth = terminal.truth("EURUSD", first_ms, terminal._faults.made_at(made_until) + 1)
    return rows, truth, said


@pytest.mark.parametrize(
    "faults",
    [
        {"refuse": 0.3},
        {"disconnect": 0.02},
        {"partial": 0.5},
        {"repeat": 0.5},
        {"busy_every_s": 20, "busy_rows": 3_000},
        {"clock_jump_after_s": 905, "clock_jump_s": 3_600},
        {
            "refuse": 0.1,
            "partial": 0.3,
            "repeat": 0.3,
            "busy_every_s": 30,
            "busy_rows": 500,
            "disconnect": 0.01,
        },
    ],
    ids=lambda faults: "+".join(faults),
)
def test_a_reader_survives(tmp_path, clock, faults):
    rows, truth, said = read_with_faults(tmp_path, clock, faults)
    assert len(rows) > 100
    assert rows.tobytes() == truth[: len(rows)].tobytes()
    assert len(truth) - len(rows) < 8, "all but what shares the last millisecond"
    assert not said


def test_a_revised_history_is_told_and_doubles_nothing(tmp_path, clock):
    rows, truth, said = read_with_faults(tmp_path, clock, {"revise": 0.3}, page_rows=4_096)
    assert said
    assert np.array_equal(rows["time_msc"], truth["time_msc"][: len(rows)])
