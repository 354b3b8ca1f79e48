"""The feed's rounds: what is backfill, what comes late, and what happens when a round cannot be stored."""

import numpy as np
import pytest

from bridge.connector import feed as feed_module
from bridge.connector.feed import Feed
from bridge.connector.pipe import Call
from bridge.connector.spool_file import SpoolFull
from bridge.connector.terminal import TerminalRefused, Traits
from core.messages.wire import NoticeCode
from core.settings import ConnectorSettings
from tests.unit.connector.tapes import ticks

BASE = 1_700_000_000_000


class Terminal:
    """Serves `history` by symbol, whole."""

    def __init__(self, replays: bool = False) -> None:
        self.traits = Traits(replays=replays)
        self.history = {}
        self.refused = set()

    async def calls(self, calls: list[Call]):
        return [self._answer(call) for call in calls]

    def _answer(self, call: Call):
        symbol, date_from, count = call.arguments[:3]
        if symbol in self.refused:
            return TerminalRefused(call.name, -4, "no")
        rows = self.history[symbol]
        rows = rows[rows["time_msc"] >= date_from * 1_000]
        return rows[rows["time_msc"] <= count * 1_000] if call.name == "copy_ticks_range" else rows[:count]


class Spool:
    """Keeps what is appended; full on request."""

    def __init__(self) -> None:
        self.batches, self.cursors, self.full = [], {}, False

    async def append(self, batches, cursors) -> None:
        if self.full:
            raise SpoolFull("full")
        self.batches += batches
        self.cursors.update(cursors)

    async def remembered_offset(self):
        return None


@pytest.fixture
async def parts(monkeypatch):
    terminal, spool, said = Terminal(), Spool(), []
    feed = Feed(
        terminal, spool, ConnectorSettings(), lambda code, detail, symbol: said.append((code, symbol))
    )
    terminal.history = {"A": ticks([BASE, BASE + 100]), "B": ticks([BASE + 50])}
    monkeypatch.setattr(feed_module.time, "time", lambda: BASE / 1_000)
    await feed.open(["A", "B"], {})
    return feed, terminal, spool, said


async def settle(feed: Feed) -> None:
    # The first answer about a symbol is believed when it was given twice.
    await feed.round(["A", "B"])
    await feed.round(["A", "B"])


async def test_history_is_backfill_and_what_follows_is_live(parts):
    feed, terminal, spool, _ = parts
    await settle(feed)
    assert [(b.backfill, [(r.symbol, r.count) for r in b.runs]) for b in spool.batches] == [
        (True, [("A", 2), ("B", 1)])
    ]
    terminal.history["B"] = ticks([BASE + 50, BASE + 2_000])
    await feed.round(["A", "B"])
    assert [(b.backfill, len(b.rows)) for b in spool.batches[1:]] == [(False, 1)]


async def test_a_recordings_rows_are_never_backfill(parts):
    feed, terminal, spool, _ = parts
    terminal.traits = Traits(replays=True)
    await feed.open(["A", "B"], {})
    assert (await feed.round(["A", "B"])).rows == 3
    assert [b.backfill for b in spool.batches] == [False]


async def test_a_symbol_that_was_not_read_for_a_while_is_backfilled(parts):
    feed, terminal, spool, _ = parts
    await settle(feed)
    for reader in feed._readers.values():
        reader.read_at_s -= 60
    terminal.history["A"] = ticks([BASE, BASE + 100, BASE + 9_000])
    await feed.round(["A", "B"])
    assert spool.batches[-1].backfill


async def test_a_refused_symbol_does_not_hold_up_the_others(parts):
    feed, terminal, spool, _ = parts
    terminal.refused = {"A"}
    await feed.round(["A", "B"])
    done = await feed.round(["A", "B"])
    assert (done.rows, done.refused) == (1, 1)
    terminal.refused = set()
    await settle(feed)
    assert sum(len(b.rows) for b in spool.batches) == 3


async def test_a_round_that_was_not_stored_is_read_again(parts):
    feed, _, spool, _ = parts
    await feed.round(["A", "B"])
    spool.full = True
    with pytest.raises(SpoolFull):
        await feed.round(["A", "B"])
    spool.full = False
    assert (await feed.round(["A", "B"])).rows == 3


async def test_late_ticks_of_the_last_minutes_are_found_delivered_and_told(parts, monkeypatch):
    feed, terminal, spool, said = parts
    await settle(feed)
    terminal.history["A"] = ticks([BASE, BASE + 100, BASE + 5_000, BASE + 9_000])
    await feed.round(["A", "B"])
    before = len(spool.batches)
    terminal.history["A"] = ticks([BASE, BASE + 100, BASE + 4_000, BASE + 5_000, BASE + 9_000])
    monkeypatch.setattr(feed_module, "LATE_CHECK_S", -1.0)
    for _ in range(6):
        await feed.check_late()
        await feed.round(["A", "B"])
    late = np.concatenate([batch.rows for batch in spool.batches[before:]])
    assert late["time_msc"].tolist() == [BASE + 4_000]
    assert said == [(NoticeCode.HISTORY_REVISED, "A")]


async def test_a_tick_from_the_future_does_not_end_its_symbol(parts):
    feed, terminal, spool, _ = parts
    await feed.round(("A",))
    terminal.history["A"] = ticks([BASE, BASE + 100, BASE + 200, 4_000_000_000_000])
    await feed.round(("A",))
    terminal.history["A"] = ticks([BASE, BASE + 100, BASE + 200, BASE + 300, 4_000_000_000_000])
    await feed.round(("A",))
    stored = [int(at) for batch in spool.batches for at in batch.rows["time_msc"]]
    assert stored == [BASE, BASE + 100, BASE + 200, BASE + 300]
