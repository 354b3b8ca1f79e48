"""Reads all ticks of an export, page after page: memory is bounded here and in the store, whatever the size.

A page ends at a key (time_msc, source, epoch, seq) that is found first. Each source by itself lies in the order of
the primary key, so its n-th next tick is found without sorting; the earliest of these keys over all sources is one
that no source has more than n ticks before.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from core.adapters.clickhouse.cursors import TickCursor
from core.adapters.clickhouse.reading import STORE_FORMATS, Condition, Reads, between, of_sources
from core.adapters.clickhouse.tick_reader import TICK_COLUMNS, continue_after, stop_at
from core.errors.exceptions import Invalid
from core.messages.jobs import ExportFormat, ExportQuery, Format
from core.settings import Settings

PAGE_ROWS: Final = 65_536
FIRST_PAGE_ROWS: Final = 4_096
"""Less than a page, so that an answer begins at once."""
SOURCE_ROWS_MIN: Final = 1_024
"""However many sources share a page."""
SOURCES_PER_SELECT_MAX: Final = 50
THREADS: Final = 1
"""An export takes what interactive reads leave."""
PAGE_FORMATS: Final = {
    **{ExportFormat(form): name for form, name in STORE_FORMATS.items()},
    ExportFormat.PARQUET: STORE_FORMATS[Format.ARROW],
    ExportFormat.MT5: STORE_FORMATS[Format.ARROW],
}
"""A Parquet file is more than its pages, and MT5's lines depend on each other: whoever writes them is given columns."""
FOLLOWING_FORMATS: Final = {**PAGE_FORMATS, ExportFormat.CSV: "CSV"}
"""How pages behind the first are written: without a header."""


class ClickHouseTickPages:
    """The `TickPages` port on ClickHouse."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def sources(self, query: ExportQuery, sources: Sequence[str], rows_max: int) -> Sequence[str]:
        present: list[str] = []
        for start in range(0, len(sources), SOURCES_PER_SELECT_MAX):
            part = sources[start : start + SOURCES_PER_SELECT_MAX]
            condition = _wanted(query, part)
            selects = _of_each(part, condition, "source", "limit 1")
            present += [source for (source,) in await self._reads.rows(selects, condition)]
        if present and await self._too_many(query, present, rows_max):
            raise Invalid(
                f"these are more than {rows_max} ticks; ask for them in parts, with from and to",
                code="TOO_MANY_ROWS",
            )
        return sorted(present)

    async def _too_many(self, query: ExportQuery, sources: Sequence[str], rows_max: int) -> bool:
        """Count only where the primary key alone cannot tell: counting would keep the first byte waiting."""
        condition = _wanted(query, sources)
        select = f"select source from ticks where {condition}"
        estimate = await self._reads.rows(f"explain estimate {select}", condition)
        # Source: ClickHouse, EXPLAIN ESTIMATE: database, table, parts, rows, marks. Never fewer than there are.
        if sum(rows for _, _, _, rows, _ in estimate) <= rows_max:
            return False
        counted = await self._reads.rows(f"select count() from ({select} limit {rows_max + 1})", condition)
        return bool(counted[0][0] > rows_max)

    async def pages(self, query: ExportQuery, sources: Sequence[str]) -> AsyncGenerator[bytes, None]:
        ahead = asyncio.create_task(self._page(query, sources, None))
        try:
            while True:
                body, until = await ahead
                if until is None:
                    yield body
                    return
                # The store reads the next page while this one is written.
                ahead = asyncio.create_task(self._page(query, sources, until))
                yield body
        finally:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)

    async def _page(
        self, query: ExportQuery, sources: Sequence[str], after: TickCursor | None
    ) -> tuple[bytes, TickCursor | None]:
        """Return the page behind `after` and the key it ends at, None for the last page."""
        store_format = (FOLLOWING_FORMATS if after else PAGE_FORMATS)[query.format]
        if not sources:
            nothing = f"select {TICK_COLUMNS} from ticks where 0"
            return await self._reads.written(nothing, Condition(), store_format), None
        until = await self._end(query, sources, after)
        condition = _wanted(query, sources)
        if after is not None:
            continue_after(condition, after)
        if until is not None:
            # A bound instead of a limit: rows backfilled since it was found are not skipped.
            stop_at(condition, until)
        order = "time_msc, epoch, seq" if len(sources) == 1 else "time_msc, source, epoch, seq"
        select = f"select {TICK_COLUMNS} from ticks where {condition} order by {order}"
        return await self._reads.written(select, condition, store_format), until

    async def _end(
        self, query: ExportQuery, sources: Sequence[str], after: TickCursor | None
    ) -> TickCursor | None:
        page_rows = PAGE_ROWS if after else FIRST_PAGE_ROWS
        rows = max(page_rows // len(sources), SOURCE_ROWS_MIN)
        ends: list[TickCursor] = []
        for start in range(0, len(sources), SOURCES_PER_SELECT_MAX):
            part = sources[start : start + SOURCES_PER_SELECT_MAX]
            condition = _wanted(query, part)
            if after is not None:
                continue_after(condition, after)
            selects = _of_each(
                part,
                condition,
                "time_msc, source, epoch, seq",
                f"order by time_msc, epoch, seq limit 1 offset {rows - 1}",
            )
            ends += [TickCursor(*row) for row in await self._reads.rows(selects, condition)]
        return min(ends, key=_key, default=None)


def _wanted(query: ExportQuery, sources: Sequence[str]) -> Condition:
    condition = of_sources(list(sources))
    condition.add("symbol = {symbol:String}", symbol=query.symbol)
    condition.add("quarantine = 'OK'")
    between(condition, query)
    return condition


def _of_each(sources: Sequence[str], condition: Condition, columns: str, tail: str) -> str:
    """Return a SELECT of each source by itself, all in one."""
    selects = []
    for number, source in enumerate(sources):
        condition.parameters[f"source{number}"] = source
        selects.append(
            f"(select {columns} from ticks where source = {{source{number}:String}} and {condition} {tail})"
        )
    return " union all ".join(selects)


def _key(end: TickCursor) -> tuple[int, bytes, int, int]:
    # The store compares texts by their bytes.
    return end.time_msc, end.source.encode(), end.epoch, end.seq


@asynccontextmanager
async def open_tick_pages(
    settings: Settings, services: Mapping[str, Any]
) -> AsyncIterator[ClickHouseTickPages]:
    yield ClickHouseTickPages(Reads(services["clickhouse"], settings.clickhouse, THREADS))
