"""Reads all bars of an export, page after page: memory is bounded here and in the store, whatever the size.

A page is a stretch of whole bars: one of a fixed width, or, where history is sparse, one that ends at the n-th next
tick, whichever is longer. Neither holds more bars than its width or its ticks.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

from core.adapters.clickhouse.bar_rows import Stretch, select_bars
from core.adapters.clickhouse.export_pages import (
    FOLLOWING_FORMATS,
    PAGE_FORMATS,
    THREADS,
    Histories,
    read_ahead,
    rows_of_each,
)
from core.adapters.clickhouse.reading import UTC_OFFSET_MS_MAX, Condition, Reads, clamp
from core.errors.exceptions import Invalid
from core.messages.jobs import INTERVAL_MS, BarExportQuery, TimeBase
from core.settings import Settings

PAGE_DAYS_MAX: Final = 28
FIRST_PAGE_DAYS_MAX: Final = 2
"""Long bars are made of many ticks; one SELECT must end long before its time-out."""
DAY_MS: Final = 86_400_000
END_MS: Final = 2**63 - 1
"""Behind every tick."""


class ClickHouseBarPages:
    """The `ExportPages` port for bars on ClickHouse."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._histories = Histories(reads)

    async def sources(self, query: BarExportQuery, sources: Sequence[str], rows_max: int) -> Sequence[str]:
        present = await self._histories.sources(query, sources)
        if await self._possible(query, present) > rows_max and await self._histories.more_than(
            query, present, rows_max
        ):
            raise Invalid(
                f"these may be more than {rows_max} bars; ask for them in parts, with from and to",
                code="TOO_MANY_ROWS",
            )
        return present

    async def _possible(self, query: BarExportQuery, sources: Sequence[str]) -> int:
        """Return how many bars there are if none is missing between the first and the last of each source."""
        first = await self._bar_of_each(query, sources, "asc")
        last = await self._bar_of_each(query, sources, "desc")
        # Retention may take a source away between the two questions.
        return sum(last[source] - first[source] + 1 for source in first.keys() & last.keys())

    async def _bar_of_each(
        self, query: BarExportQuery, sources: Sequence[str], direction: str
    ) -> dict[str, int]:
        """Return the number of the first or the last bar of each source."""
        found = await self._histories.of_each(
            query, sources, "source, time_msc", f"order by time_msc {direction} limit 1"
        )
        return {source: moment // INTERVAL_MS[query.interval] for source, moment in found}

    def pages(self, query: BarExportQuery, sources: Sequence[str]) -> AsyncGenerator[bytes, None]:
        return read_ahead(partial(self._page, query, sources))

    async def _page(
        self, query: BarExportQuery, sources: Sequence[str], start_ms: int | None
    ) -> tuple[bytes, int | None]:
        """Return the page that begins at `start_ms` and where the next one does, None for the last page."""
        store_format = (PAGE_FORMATS if start_ms is None else FOLLOWING_FORMATS)[query.format]
        begun_ms = await self._begin(query, sources) if start_ms is None else start_ms
        end_ms = await self._end(query, sources, begun_ms, first=start_ms is None)
        stretch = Stretch(
            query=query,
            sources=sources,
            start_ms=begun_ms,
            end_ms=END_MS if end_ms is None else end_ms,
        )
        return await self._reads.written(*select_bars(stretch), store_format), end_ms

    async def _begin(self, query: BarExportQuery, sources: Sequence[str]) -> int:
        firsts = await self._histories.of_each(query, sources, "time_msc", "order by time_msc limit 1")
        first_ms = min((moment for (moment,) in firsts), default=0)
        return _whole_bars(query, first_ms - _slack_ms(query))

    async def _end(
        self, query: BarExportQuery, sources: Sequence[str], start_ms: int, *, first: bool
    ) -> int | None:
        if not sources:
            return None
        slack_ms = _slack_ms(query)

        def behind(condition: Condition) -> None:
            condition.add("time_msc >= {behind:Int64}", behind=clamp(start_ms - slack_ms))

        rows = rows_of_each(sources, first=first)
        ends = await self._histories.of_each(
            query, sources, "time_msc", f"order by time_msc limit 1 offset {rows - 1}", behind
        )
        if not ends:
            return None
        days = FIRST_PAGE_DAYS_MAX if first else PAGE_DAYS_MAX
        width_ms = min(rows * INTERVAL_MS[query.interval], days * DAY_MS)
        sparse_ms = _whole_bars(query, min(moment for (moment,) in ends) - slack_ms)
        return max(start_ms + _whole_bars(query, width_ms), sparse_ms)


def _slack_ms(query: BarExportQuery) -> int:
    """Return how far a tick's moment on the query's clock may lie from its place in the store's order."""
    return UTC_OFFSET_MS_MAX if query.clock is TimeBase.UTC else 0


def _whole_bars(query: BarExportQuery, moment_ms: int) -> int:
    step_ms = INTERVAL_MS[query.interval]
    return moment_ms // step_ms * step_ms


@asynccontextmanager
async def open_bar_pages(
    settings: Settings, services: Mapping[str, Any]
) -> AsyncIterator[ClickHouseBarPages]:
    yield ClickHouseBarPages(Reads(services["clickhouse"], settings.clickhouse, THREADS))
