"""Poll every symbol, turn what is new into batches, and put each round into the spool in one transaction."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from bridge.connector.cursor import Cursor, CursorState, Step, start_at
from bridge.connector.frames import joined_runs
from bridge.connector.offset import OffsetMeter
from bridge.connector.pipe import Call
from bridge.connector.rows import join
from bridge.connector.spool_thread import SpoolThread
from bridge.connector.terminal import COPY_TICKS_ALL, TerminalRefused
from bridge.connector.terminal_process import TerminalProcess
from core.messages.wire import BATCH_ROWS_MAX, RUNS_MAX, Batch, NoticeCode
from core.model.ticks import SymbolRun, Ticks, slice_runs
from core.settings import ConnectorSettings

log = structlog.get_logger(__name__)

ROUND_ROWS_MAX: Final = 262_144
"""Rows read before they are stored: 16 MB."""
PAGE_ROWS_CATCHUP_MAX: Final = 65_536
ABSENCE_S_MIN: Final = 2.0
ABSENCE_POLLS: Final = 20
"""A symbol that was not read for so many poll intervals (and ABSENCE_S_MIN) has been absent."""
LATE_CHECK_S: Final = 60.0
DAY_S: Final = 86_400
SERVER_AHEAD_MS_MAX: Final = 15 * 3_600_000
"""No trade server's clock is further ahead of UTC (the largest offset is 14 h)."""
REFUSAL_LOG_S: Final = 30.0

Say = Callable[[NoticeCode, str, str], None]


@dataclass(slots=True)
class Reader:
    """One symbol. behind: what it reads was made before it watched, until an answer is not full."""

    cursor: Cursor
    behind: bool = True
    read_at_s: float = 0.0
    checked_at_s: float = 0.0
    refused_at_s: float = float("-inf")
    oldest_ms: int = -1
    holds_back: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """rows: new ticks. again: symbols with more waiting. refused: symbols the terminal did not answer for."""

    rows: int
    again: tuple[str, ...]
    refused: int


class Feed:
    """Reads the terminal. A round that could not be stored changes nothing and is read again."""

    def __init__(
        self, terminal: TerminalProcess, spool: SpoolThread, settings: ConnectorSettings, say: Say
    ) -> None:
        self._terminal = terminal
        self._spool = spool
        self._settings = settings
        self._say = say
        self._readers: dict[str, Reader] = {}
        self._absence_s = max(ABSENCE_S_MIN, ABSENCE_POLLS * settings.poll_interval_ms / 1_000)
        self.offset = OffsetMeter()
        self._replays = False

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(self._readers)

    async def open(self, symbols: Sequence[str], states: Mapping[str, CursorState]) -> None:
        """Begin, or begin anew, behind `states`; a symbol without one begins where its history does."""
        traits = self._terminal.traits
        if self._replays != traits.replays or traits.declared_utc_offset_s is not None:
            self.offset = OffsetMeter(traits.declared_utc_offset_s)
        recalled = await self._spool.remembered_offset()
        if recalled is not None:
            self.offset.recall(*recalled, time.time())
        self._replays = traits.replays
        days = self._settings.history_days_max
        start_s = 1 if traits.replays else max(1, int(time.time()) - days * DAY_S)
        page_catchup = max(
            self._settings.page_rows, min(PAGE_ROWS_CATCHUP_MAX, ROUND_ROWS_MAX // len(symbols))
        )
        self._readers = {
            symbol: Reader(
                Cursor(states.get(symbol) or start_at(start_s), self._settings.page_rows, page_catchup)
            )
            for symbol in symbols
        }

    async def round(self, symbols: Sequence[str]) -> Round:
        """Read each of `symbols` once and store what is new.

        Raises: SpoolFull, and the terminal's errors; then nothing has changed.
        """
        readers = {symbol: self._readers[symbol] for symbol in symbols}
        calls = [
            Call(
                name="copy_ticks_from",
                arguments=[symbol, reader.cursor.date_from, reader.cursor.page, COPY_TICKS_ALL],
            )
            for symbol, reader in readers.items()
        ]
        now_s = asyncio.get_running_loop().time()
        answers = dict(zip(readers, await self._terminal.calls(calls), strict=True))
        captured_at_ms = time.time_ns() // 1_000_000
        refused = {s: a for s, a in answers.items() if isinstance(a, TerminalRefused)}
        steps: dict[str, Step] = {}
        for symbol, reader in readers.items():
            if symbol in refused:
                self._note_refusal(symbol, reader, refused[symbol], now_s)
                continue
            if not self._is_loaded(reader, answers[symbol]):
                continue
            reader.behind |= now_s - reader.read_at_s > self._absence_s
            steps[symbol] = reader.cursor.read(self._believable(reader, answers[symbol], captured_at_ms))
        await self._store(steps, captured_at_ms)
        offset_s = self.offset.offset_s
        for symbol, step in steps.items():
            self._advance(symbol, readers[symbol], step, now_s)
        if self.offset.offset_s != offset_s:
            await self._spool.remember_offset(self.offset.offset_s, int(time.time()))
        again = tuple(symbol for symbol, step in steps.items() if step.again)
        return Round(rows=sum(len(step.rows) for step in steps.values()), again=again, refused=len(refused))

    def _believable(self, reader: Reader, ticks: Ticks, now_ms: int) -> Ticks:
        """Hold back ticks from a time no trade server can have yet, until it has.

        One of them would carry the cursor into the future, and all that follows would look like the past.
        """
        if self._replays:
            return ticks
        ahead = ticks["time_msc"] > now_ms + SERVER_AHEAD_MS_MAX
        if not ahead.any():
            reader.holds_back = False
            return ticks
        if not reader.holds_back:
            reader.holds_back = True
            log.error(
                "feed.ticks_from_the_future", ticks=int(ahead.sum()), newest_ms=int(ticks["time_msc"].max())
            )
        return ticks[~ahead]

    async def check_late(self) -> None:
        """Compare the last minutes of symbols whose turn it is with what was delivered; store what came late.

        Raises: as `round`.
        """
        now_s = asyncio.get_running_loop().time()
        # The longest unchecked first, or with many symbols the last ones would never have their turn.
        for symbol, reader in sorted(self._readers.items(), key=lambda item: item[1].checked_at_s):
            if reader.behind or now_s - reader.checked_at_s < LATE_CHECK_S:
                continue
            from_ms, to_ms = reader.cursor.recent.window()
            first_look = not reader.checked_at_s
            reader.checked_at_s = now_s
            if to_ms <= from_ms or first_look:
                continue
            await self._check_late(symbol, reader, from_ms, to_ms)
            return

    async def _check_late(self, symbol: str, reader: Reader, from_ms: int, to_ms: int) -> None:
        arguments = [symbol, from_ms // 1_000, to_ms // 1_000, COPY_TICKS_ALL]
        call = Call(name="copy_ticks_range", arguments=arguments)
        answers = [
            answer for answer in await self._terminal.calls([call]) if not isinstance(answer, TerminalRefused)
        ]
        if not answers:
            return
        late, altered = reader.cursor.recent.compare(answers[0], from_ms, to_ms)
        if not len(late) and not altered:
            return
        # Said twice, or it was one answer's glitch.
        again = (await self._terminal.calls([call]))[0]
        if isinstance(again, TerminalRefused) or again.tobytes() != answers[0].tobytes():
            return
        step = Step(state=reader.cursor.state, rows=late, again=False)
        await self._store({symbol: step}, time.time_ns() // 1_000_000)
        reader.cursor.recent.replace(answers[0], from_ms, to_ms)
        self._revised(symbol, f"{len(late)} late ticks, {altered} altered milliseconds in the last minutes")

    def _is_loaded(self, reader: Reader, answer: Ticks) -> bool:
        """Whether history may be believed to begin where it seems to.

        The first question about a symbol starts a download in a real terminal; until it is done, history begins late.
        """
        if self._replays or reader.cursor.state.count:
            return True
        before, reader.oldest_ms = reader.oldest_ms, int(answer["time_msc"][0]) if len(answer) else 0
        return before == reader.oldest_ms

    def _advance(self, symbol: str, reader: Reader, step: Step, now_s: float) -> None:
        reader.cursor.commit(step)
        reader.read_at_s = now_s
        if step.revised:
            self._revised(symbol, step.revised)
        if not reader.behind and len(step.rows) and self.offset.observe(step.state.time_msc, time.time()):
            log.info("offset.changed", offset_s=self.offset.offset_s)
            self._say(
                NoticeCode.OFFSET_CHANGED, f"the trade server's clock is UTC{self.offset.offset_s:+d} s", ""
            )
        reader.behind &= step.again

    def _revised(self, symbol: str, what: str) -> None:
        log.warning("history.revised", symbol=symbol, what=what)
        self._say(NoticeCode.HISTORY_REVISED, what, symbol)

    def _note_refusal(self, symbol: str, reader: Reader, refusal: TerminalRefused, now_s: float) -> None:
        if now_s - reader.refused_at_s > REFUSAL_LOG_S:
            reader.refused_at_s = now_s
            log.warning("terminal.refused", symbol=symbol, error=str(refusal))

    async def _store(self, steps: Mapping[str, Step], captured_at_ms: int) -> None:
        changed = {symbol: step.state for symbol, step in steps.items() if step.state != self._state(symbol)}
        batches: list[Batch] = []
        for backfill in (True, False):
            parts = [
                (symbol, step.rows)
                for symbol, step in steps.items()
                if len(step.rows) and self._is_backfill(symbol) == backfill
            ]
            batches += make_batches(parts, self.offset.offset_s, captured_at_ms, backfill=backfill)
        if batches or changed:
            await self._spool.append(batches, changed)

    def _state(self, symbol: str) -> CursorState:
        return self._readers[symbol].cursor.state

    def _is_backfill(self, symbol: str) -> bool:
        # A recording has no live moments: its rows are the feed, however old they are.
        return self._readers[symbol].behind and not self._replays


def make_batches(
    parts: Sequence[tuple[str, Ticks]], utc_offset_s: int, captured_at_ms: int, *, backfill: bool
) -> list[Batch]:
    """Make as few batches as the wire allows of symbols' rows, in order. Their seqs are given by the spool."""
    if not parts:
        return []
    rows = join([rows for _, rows in parts])
    runs = joined_runs([SymbolRun(symbol=symbol, count=len(rows)) for symbol, rows in parts])
    assert len(runs) <= RUNS_MAX, "a round reads no more symbols than a batch may hold"
    return [
        Batch(
            first_seq=1,
            rows=rows[at : at + BATCH_ROWS_MAX],
            runs=slice_runs(runs, at, at + BATCH_ROWS_MAX),
            utc_offset_s=utc_offset_s,
            captured_at_ms=captured_at_ms,
            backfill=backfill,
        )
        for at in range(0, len(rows), BATCH_ROWS_MAX)
    ]
