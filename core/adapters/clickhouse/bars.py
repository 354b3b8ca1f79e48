"""Pages of bars, computed on read."""

from typing import Final

import msgspec

from core.adapters.clickhouse.bar_rows import Stretch, moment_of, select_bars
from core.adapters.clickhouse.cursors import BarCursor, read_cursor, write_cursor
from core.adapters.clickhouse.reading import (
    UTC_OFFSET_MS_MAX,
    Reads,
    clamp,
    json_list,
    of_symbol,
    split_lines,
)
from core.messages.jobs import CONTENT_TYPES, INTERVAL_MS, Answer, BarQuery, Format, TimeBase
from core.model.freshness import Reach, reach

WINDOW_BARS_MIN: Final = 64
WINDOW_GROWTH: Final = 4
"""A page is looked for in a stretch of time that grows until it is full: sparse history costs a few questions more,
dense history is never read beyond the page."""


class _Bar(msgspec.Struct):
    source: str
    time_ms: int


_decode_bar: Final = msgspec.json.Decoder(_Bar).decode


class BarReader:
    """Pages of bars."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def page(self, query: BarQuery, sources: list[str]) -> Answer:
        """Raises: Unavailable, Invalid."""
        cursor = read_cursor(query.cursor, BarCursor) if query.cursor is not None else None
        span = await self._span(query, sources, cursor) if sources else None
        start_ms, stop_ms = span or (0, 0)
        width_ms = max(query.limit + 1, WINDOW_BARS_MIN) * INTERVAL_MS[query.interval]
        while True:
            end_ms = min(start_ms + width_ms, stop_ms)
            stretch = Stretch(query=query, sources=sources, cursor=cursor, start_ms=start_ms, end_ms=end_ms)
            lines = await self._bars(stretch, query.limit + 1) if span else []
            if len(lines) > query.limit or end_ms >= stop_ms:
                return await self._written(query, stretch, lines)
            width_ms *= WINDOW_GROWTH

    def reach(self, query: BarQuery, answer: Answer | None) -> Reach:
        """See `TickReader`. A page ends where the next one begins: later ticks are none of its bars."""
        slack_ms = UTC_OFFSET_MS_MAX if query.clock is TimeBase.UTC else 0
        starts = [query.start_ms] if query.start_ms is not None else []
        stops = [query.stop_ms] if query.stop_ms is not None else []
        if query.cursor is not None:
            starts.append(read_cursor(query.cursor, BarCursor).time_ms)
        if answer is not None and answer.next_cursor is not None:
            last_ms = read_cursor(answer.next_cursor, BarCursor).time_ms
            stops.append(last_ms + INTERVAL_MS[query.interval] - 1)
        start_ms = max(starts) - slack_ms if starts else None
        return reach(query.symbol, start_ms, min(stops) + slack_ms if stops else None)

    async def _span(
        self, query: BarQuery, sources: list[str], cursor: BarCursor | None
    ) -> tuple[int, int] | None:
        """Return the first and past-the-last moment of the matching ticks, the first cut to a whole bar."""
        condition = of_symbol(query, sources)
        moment = moment_of(query)
        rows = await self._reads.rows(
            f"select min({moment}), max({moment}), count() from ticks where {condition}", condition
        )
        first_ms, last_ms, count = rows[0]
        if not count:
            return None
        step_ms = INTERVAL_MS[query.interval]
        start_ms = first_ms // step_ms * step_ms
        if cursor is not None:
            start_ms = max(start_ms, clamp(cursor.time_ms // step_ms * step_ms))
        return start_ms, last_ms + 1

    async def _bars(self, stretch: Stretch, rows_max: int) -> list[bytes]:
        select, condition = select_bars(stretch)
        body = await self._reads.body(f"{select} limit {rows_max}", condition, Format.JSON)
        return split_lines(body)

    async def _written(self, query: BarQuery, stretch: Stretch, lines: list[bytes]) -> Answer:
        limit, form = query.limit, query.format
        next_cursor = None
        if len(lines) > limit:
            last = _decode_bar(lines[limit - 1])
            next_cursor = write_cursor(BarCursor(last.time_ms, last.source))
        if form is Format.JSON:
            return json_list(lines[:limit], next_cursor)
        select, condition = select_bars(stretch)
        body = await self._reads.body(f"{select} limit {limit}", condition, form)
        rows = len(lines[:limit])
        return Answer(content_type=CONTENT_TYPES[form], body=body, next_cursor=next_cursor, rows=rows)
