"""Reads of the tick store: symbols, ticks, quarantined rows, newest quotes. Bodies come as ClickHouse writes them."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from core.adapters.clickhouse.bars import BarReader
from core.adapters.clickhouse.cursors import TickCursor, read_cursor, write_cursor
from core.adapters.clickhouse.reading import (
    UTC_TIME,
    Condition,
    Reads,
    between,
    json_list,
    of_sources,
    of_symbol,
    split_lines,
)
from core.messages.jobs import CONTENT_TYPES, Answer, BarQuery, Format, QuarantineQuery, TickQuery
from core.model.freshness import Reach
from core.settings import Settings

_UTC_MS: Final = f"{UTC_TIME} as utc_ms"
TICK_COLUMNS: Final = (
    f"symbol, source, time_msc, {_UTC_MS}, bid, ask, last, volume, volume_real, flags, epoch, seq,"
    " toBool(backfill) as backfill"
)
_QUARANTINED: Final = (
    f"symbol, source, toString(quarantine) as reason, time, time_msc, {_UTC_MS}, bid, ask, last, volume,"
    " volume_real, flags, epoch, seq, toBool(backfill) as backfill, captured_at_ms"
)
_QUOTE: Final = f"symbol, source, time_msc, {_UTC_MS}, bid, ask, last, volume, flags, epoch, seq"
_KEY: Final = "time_msc, source, epoch, seq"
_BY_TIME: Final = "time_msc, epoch, seq"
_BY_TIME_AND_SOURCE: Final = "time_msc, source, epoch, seq"
SOURCES_APART_MAX: Final = 16
QUOTES_PER_SELECT_MAX: Final = 50


class ClickHouseTickReader:
    """The `TickReader` port on ClickHouse."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._bars = BarReader(reads)

    async def symbols(self, sources: Sequence[str]) -> Answer:
        if not sources:
            return json_list([], None)
        condition = of_sources(list(sources))
        body = await self._reads.body(
            "select symbol, source, min(time_msc) as first_time_msc, max(time_msc) as last_time_msc,"
            f" count() as ticks from ticks where {condition} and quarantine = 'OK'"
            " group by symbol, source order by symbol, source",
            condition,
            Format.JSON,
        )
        return json_list(split_lines(body), None)

    async def ticks(self, query: TickQuery, sources: Sequence[str]) -> Answer:
        if not sources:
            return await self._nothing(query.format, TICK_COLUMNS)
        return await self._page(TICK_COLUMNS, of_symbol(query, sources), query, apart=sources)

    async def quarantine(self, query: QuarantineQuery, sources: Sequence[str]) -> Answer:
        if not sources:
            return await self._nothing(query.format, _QUARANTINED)
        condition = of_sources(list(sources))
        if query.symbol is not None:
            condition.add("symbol = {symbol:String}", symbol=query.symbol)
        condition.add("quarantine != 'OK'")
        between(condition, query)
        return await self._page(_QUARANTINED, condition, query, apart=())

    async def bars(self, query: BarQuery, sources: Sequence[str]) -> Answer:
        return await self._bars.page(query, list(sources))

    def reach(self, query: BarQuery, answer: Answer | None) -> Reach:
        return self._bars.reach(query, answer)

    async def last_quotes(self, sources: Sequence[str], symbols: Sequence[str]) -> Sequence[bytes]:
        pairs = [(source, symbol) for source in sources for symbol in symbols]
        found: list[bytes] = []
        for start in range(0, len(pairs), QUOTES_PER_SELECT_MAX):
            found.extend(await self._newest(pairs[start : start + QUOTES_PER_SELECT_MAX]))
        return found

    async def _newest(self, pairs: list[tuple[str, str]]) -> list[bytes]:
        """Read the newest row of each pair from the end of its stretch of the primary key."""
        condition, selects = Condition(), []
        for number, (source, symbol) in enumerate(pairs):
            condition.parameters[f"source{number}"] = source
            condition.parameters[f"symbol{number}"] = symbol
            selects.append(
                f"(select {_QUOTE} from ticks where source = {{source{number}:String}}"
                f" and symbol = {{symbol{number}:String}} and quarantine = 'OK'"
                " order by time_msc desc, epoch desc, seq desc limit 1)"
            )
        body = await self._reads.body(
            f"select * from ({' union all '.join(selects)}) order by symbol, source", condition, Format.JSON
        )
        return split_lines(body)

    async def _page(
        self,
        columns: str,
        condition: Condition,
        query: TickQuery | QuarantineQuery,
        *,
        apart: Sequence[str],
    ) -> Answer:
        """Answer a page. apart: sources of one symbol, each of which lies in the order of the primary key."""
        if query.cursor is not None:
            continue_after(condition, read_cursor(query.cursor, TickCursor))
        if query.format is Format.JSON:
            select = _first(columns, condition, query.limit + 1, apart)
            lines = split_lines(await self._reads.body(select, condition, Format.JSON))
            return _json_page(lines, query.limit)
        return await self._file(columns, condition, query, apart)

    async def _file(
        self,
        columns: str,
        condition: Condition,
        query: TickQuery | QuarantineQuery,
        apart: Sequence[str],
    ) -> Answer:
        """Find the page's last row first: the body of a file is not read here."""
        boundary = await self._reads.rows(
            f"{_first(_KEY, condition, query.limit + 1, apart)} offset {query.limit - 1}",
            condition,
        )
        next_cursor = None
        # The page's last row, and one behind it where there is one.
        if len(boundary) > 1:
            last = TickCursor(*boundary[0])
            next_cursor = write_cursor(last)
            # A bound instead of a limit: rows backfilled between the two questions make the page longer
            # and are not skipped.
            stop_at(condition, last)
        order = _BY_TIME if len(apart) == 1 else _BY_TIME_AND_SOURCE
        body = await self._reads.body(
            f"select {columns} from ticks where {condition} order by {order}", condition, query.format
        )
        return Answer(content_type=CONTENT_TYPES[query.format], body=body, next_cursor=next_cursor)

    async def _nothing(self, form: Format, columns: str) -> Answer:
        if form is Format.JSON:
            return json_list([], None)
        body = await self._reads.body(f"select {columns} from ticks where 0", Condition(), form)
        return Answer(content_type=CONTENT_TYPES[form], body=body)


def _first(columns: str, condition: Condition, limit: int, apart: Sequence[str]) -> str:
    """Return the SELECT of the first rows; it ends with its limit.

    Of several sources at once every row would be read and sorted; of each by itself the first rows are just there.
    """
    if len(apart) == 1:
        return f"select {columns} from ticks where {condition} order by {_BY_TIME} limit {limit}"
    if not 0 < len(apart) <= SOURCES_APART_MAX:
        return f"select {columns} from ticks where {condition} order by {_BY_TIME_AND_SOURCE} limit {limit}"
    selects = []
    for number, source in enumerate(apart):
        condition.parameters[f"source{number}"] = source
        selects.append(
            f"(select {columns} from ticks where source = {{source{number}:String}} and {condition}"
            f" order by {_BY_TIME} limit {limit})"
        )
    return f"select * from ({' union all '.join(selects)}) order by {_BY_TIME_AND_SOURCE} limit {limit}"


def continue_after(condition: Condition, cursor: TickCursor) -> None:
    """Add `cursor` as the row before the page's first."""
    condition.add(
        "time_msc >= {c_time:Int64} and (time_msc, source, epoch, seq)"
        " > ({c_time:Int64}, {c_source:String}, {c_epoch:UInt32}, {c_seq:UInt64})",
        c_time=cursor.time_msc,
        c_source=cursor.source,
        c_epoch=cursor.epoch,
        c_seq=cursor.seq,
    )


def stop_at(condition: Condition, last: TickCursor) -> None:
    """Add `last` as the page's last row."""
    condition.add(
        "time_msc <= {l_time:Int64} and (time_msc, source, epoch, seq)"
        " <= ({l_time:Int64}, {l_source:String}, {l_epoch:UInt32}, {l_seq:UInt64})",
        l_time=last.time_msc,
        l_source=last.source,
        l_epoch=last.epoch,
        l_seq=last.seq,
    )


class _Row(msgspec.Struct):
    time_msc: int
    source: str
    epoch: int
    seq: int


_decode_row: Final = msgspec.json.Decoder(_Row).decode


def _json_page(lines: list[bytes], limit: int) -> Answer:
    """Only the page's last line is ever decoded."""
    if len(lines) <= limit:
        return json_list(lines, None)
    last = _decode_row(lines[limit - 1])
    cursor = write_cursor(TickCursor(last.time_msc, last.source, last.epoch, last.seq))
    return json_list(lines[:limit], cursor)


@asynccontextmanager
async def open_tick_reader(
    settings: Settings, services: Mapping[str, Any]
) -> AsyncIterator[ClickHouseTickReader]:
    yield ClickHouseTickReader(Reads(services["clickhouse"], settings.clickhouse))
