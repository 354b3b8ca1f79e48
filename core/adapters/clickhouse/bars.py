"""Bars computed on read: open, high, low, close, volumes and spread of each interval, one source at a time.

Which tick opens or closes a bar is decided by (time_msc, epoch, seq) packed into one 128-bit number: exact among
ticks of one millisecond and across epochs, and several times cheaper than comparing tuples.
"""

from dataclasses import dataclass
from typing import Final

import msgspec

from core.adapters.clickhouse.cursors import BarCursor, read_cursor, write_cursor
from core.adapters.clickhouse.reading import (
    UTC_OFFSET_MS_MAX,
    UTC_TIME,
    Condition,
    Reads,
    between,
    clamp,
    json_list,
    of_sources,
    split_lines,
)
from core.messages.jobs import CONTENT_TYPES, INTERVAL_MS, Answer, BarPrice, BarQuery, Format, TimeBase
from core.model.freshness import Reach, reach

_PRICES: Final[dict[BarPrice, str]] = {
    BarPrice.AUTO: "if(bid > 0, bid, last)",
    BarPrice.BID: "bid",
    BarPrice.ASK: "ask",
    BarPrice.MID: "if(bid > 0 and ask > 0, (bid + ask) / 2, 0)",
    BarPrice.LAST: "last",
}
assert set(_PRICES) == set(BarPrice), "every price has its expression"

_ORDER: Final = (
    "bitShiftLeft(toUInt128(moment - time_ms), 96) + bitShiftLeft(toUInt128(epoch), 64) + toUInt128(seq)"
)
_COLUMNS: Final = (
    "any(symbol) as symbol, source, time_ms, argMin(price, rank) as open, max(price) as high,"
    " min(price) as low, argMax(price, rank) as close, count() as tick_volume, sum(volume_real) as volume,"
    # Rounded to ten places: a difference of doubles carries noise far behind any price's digits.
    " round(minOrNullIf(ask - bid, bid > 0 and ask > 0), 10) as spread_min,"
    " round(avgOrNullIf(ask - bid, bid > 0 and ask > 0), 10) as spread_avg"
)
WINDOW_BARS_MIN: Final = 64
WINDOW_GROWTH: Final = 4
"""A page is looked for in a stretch of time that grows until it is full: sparse history costs a few questions more,
dense history is never read beyond the page."""


class _Bar(msgspec.Struct):
    source: str
    time_ms: int


_decode_bar: Final = msgspec.json.Decoder(_Bar).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stretch:
    """Bars of `query` after `cursor` whose ticks lie in [start_ms, end_ms), which are whole bars."""

    query: BarQuery
    sources: list[str]
    cursor: BarCursor | None
    start_ms: int
    end_ms: int


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
            stretch = _Stretch(query=query, sources=sources, cursor=cursor, start_ms=start_ms, end_ms=end_ms)
            lines = await self._bars(stretch) if span else []
            if len(lines) > query.limit or end_ms >= stop_ms:
                return await self._written(stretch, lines)
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
        condition = _ticks_of(query, sources)
        moment = _moment(query)
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

    async def _bars(self, stretch: _Stretch) -> list[bytes]:
        select, condition = _select(stretch)
        body = await self._reads.body(f"{select} limit {stretch.query.limit + 1}", condition, Format.JSON)
        return split_lines(body)

    async def _written(self, stretch: _Stretch, lines: list[bytes]) -> Answer:
        limit, form = stretch.query.limit, stretch.query.format
        next_cursor = None
        if len(lines) > limit:
            last = _decode_bar(lines[limit - 1])
            next_cursor = write_cursor(BarCursor(last.time_ms, last.source))
        if form is Format.JSON:
            return json_list(lines[:limit], next_cursor)
        select, condition = _select(stretch)
        body = await self._reads.body(f"{select} limit {limit}", condition, form)
        rows = len(lines[:limit])
        return Answer(content_type=CONTENT_TYPES[form], body=body, next_cursor=next_cursor, rows=rows)


def _moment(query: BarQuery) -> str:
    return f"assumeNotNull({UTC_TIME})" if query.clock is TimeBase.UTC else "time_msc"


def _ticks_of(query: BarQuery, sources: list[str]) -> Condition:
    condition = of_sources(sources)
    condition.add("symbol = {symbol:String}", symbol=query.symbol)
    condition.add("quarantine = 'OK'")
    between(condition, query)
    return condition


def _select(stretch: _Stretch) -> tuple[str, Condition]:
    query, cursor = stretch.query, stretch.cursor
    condition = _ticks_of(query, stretch.sources)
    moment = _moment(query)
    condition.add(
        f"{moment} >= {{from_ms:Int64}} and {moment} < {{until_ms:Int64}}",
        from_ms=stretch.start_ms,
        until_ms=stretch.end_ms,
        step_ms=INTERVAL_MS[query.interval],
    )
    after = ""
    if cursor is not None:
        after = " where (time_ms, source) > ({c_time:Int64}, {c_source:String})"
        condition.parameters.update(c_time=clamp(cursor.time_ms), c_source=cursor.source)
    ticks = (
        f"select symbol, source, {moment} as moment,"
        " moment - positiveModulo(moment, {step_ms:Int64}) as time_ms,"
        f" {_PRICES[query.price]} as price, {_ORDER} as rank, bid, ask, volume_real"
        f" from ticks where {condition} and price > 0"
    )
    bars = f"select {_COLUMNS} from ({ticks}) group by time_ms, source"
    return f"select * from ({bars}){after} order by time_ms, source", condition
