"""Reads all ticks of an export, page after page: memory is bounded here and in the store, whatever the size.

A page ends at a key (time_msc, source, epoch, seq) that is found first: the earliest over all sources of the key of
the n-th next tick, so that no source has more than n ticks before it.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from core.adapters.clickhouse.cursors import TickCursor
from core.adapters.clickhouse.export_pages import (
    FOLLOWING_FORMATS,
    PAGE_FORMATS,
    THREADS,
    Histories,
    read_ahead,
    rows_of_each,
)
from core.adapters.clickhouse.reading import Condition, Reads, of_symbol
from core.adapters.clickhouse.tick_reader import TICK_COLUMNS, continue_after, stop_at
from core.errors.exceptions import Invalid
from core.messages.jobs import ExportQuery
from core.settings import Settings


class ClickHouseTickPages:
    """The `ExportPages` port for ticks on ClickHouse."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._histories = Histories(reads)

    async def sources(self, query: ExportQuery, sources: Sequence[str], rows_max: int) -> Sequence[str]:
        present = await self._histories.sources(query, sources)
        if present and await self._histories.more_than(query, present, rows_max):
            raise Invalid(
                f"these are more than {rows_max} ticks; ask for them in parts, with from and to",
                code="TOO_MANY_ROWS",
            )
        return present

    def pages(self, query: ExportQuery, sources: Sequence[str]) -> AsyncGenerator[bytes, None]:
        return read_ahead(partial(self._page, query, sources))

    async def _page(
        self, query: ExportQuery, sources: Sequence[str], after: TickCursor | None
    ) -> tuple[bytes, TickCursor | None]:
        """Return the page behind `after` and the key it ends at, None for the last page."""
        store_format = (FOLLOWING_FORMATS if after else PAGE_FORMATS)[query.format]
        if not sources:
            nothing = f"select {TICK_COLUMNS} from ticks where 0"
            return await self._reads.written(nothing, Condition(), store_format), None
        until = await self._end(query, sources, after)
        condition = of_symbol(query, sources)
        _continue(condition, after)
        if until is not None:
            # A bound instead of a limit: rows backfilled since it was found are not skipped.
            stop_at(condition, until)
        order = "time_msc, epoch, seq" if len(sources) == 1 else "time_msc, source, epoch, seq"
        select = f"select {TICK_COLUMNS} from ticks where {condition} order by {order}"
        return await self._reads.written(select, condition, store_format), until

    async def _end(
        self, query: ExportQuery, sources: Sequence[str], after: TickCursor | None
    ) -> TickCursor | None:
        rows = rows_of_each(sources, first=after is None)
        ends = await self._histories.of_each(
            query,
            sources,
            "time_msc, source, epoch, seq",
            f"order by time_msc, epoch, seq limit 1 offset {rows - 1}",
            partial(_continue, after=after),
        )
        return min((TickCursor(*end) for end in ends), key=_key, default=None)


def _continue(condition: Condition, after: TickCursor | None) -> None:
    if after is not None:
        continue_after(condition, after)


def _key(end: TickCursor) -> tuple[int, bytes, int, int]:
    # The store compares texts by their bytes.
    return end.time_msc, end.source.encode(), end.epoch, end.seq


@asynccontextmanager
async def open_tick_pages(
    settings: Settings, services: Mapping[str, Any]
) -> AsyncIterator[ClickHouseTickPages]:
    yield ClickHouseTickPages(Reads(services["clickhouse"], settings.clickhouse, THREADS))
