"""What exports of ticks and of bars share: how pages are written and read ahead, and what each source has.

Each source by itself lies in the order of the primary key, so its n-th next tick is found without sorting.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

from core.adapters.clickhouse.reading import STORE_FORMATS, Condition, Reads, of_symbol
from core.messages.jobs import ExportFormat, ExportQuery, Format

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

Place = TypeVar("Place")


def rows_of_each(sources: Sequence[str], *, first: bool) -> int:
    """Return how many rows of each source make a page."""
    return max((FIRST_PAGE_ROWS if first else PAGE_ROWS) // len(sources), SOURCE_ROWS_MIN)


async def read_ahead(
    page: Callable[[Place | None], Awaitable[tuple[bytes, Place | None]]],
) -> AsyncGenerator[bytes, None]:
    """Yield pages. page: reads the one behind a place, and says where the next begins; None before and at the end."""
    ahead = asyncio.ensure_future(page(None))
    try:
        while True:
            body, until = await ahead
            if until is None:
                yield body
                return
            # The store reads the next page while this one is written.
            ahead = asyncio.ensure_future(page(until))
            yield body
    finally:
        ahead.cancel()
        await asyncio.gather(ahead, return_exceptions=True)


class Histories:
    """A symbol's ticks, one source at a time."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def sources(self, query: ExportQuery, sources: Sequence[str]) -> Sequence[str]:
        """Return those that have ticks, sorted. Raises: Unavailable."""
        return sorted([source for (source,) in await self.of_each(query, sources, "source", "limit 1")])

    async def more_than(self, query: ExportQuery, sources: Sequence[str], rows_max: int) -> bool:
        """Count only where the primary key alone cannot tell: counting would keep the first byte waiting."""
        condition = of_symbol(query, sources)
        select = f"select source from ticks where {condition}"
        estimate = await self._reads.rows(f"explain estimate {select}", condition)
        # Source: ClickHouse, EXPLAIN ESTIMATE: database, table, parts, rows, marks. Never fewer than there are.
        if sum(rows for _, _, _, rows, _ in estimate) <= rows_max:
            return False
        counted = await self._reads.rows(f"select count() from ({select} limit {rows_max + 1})", condition)
        return bool(counted[0][0] > rows_max)

    async def of_each(
        self,
        query: ExportQuery,
        sources: Sequence[str],
        columns: str,
        tail: str,
        narrow: Callable[[Condition], None] = lambda _: None,
    ) -> list[list[Any]]:
        """Return what a SELECT that ends with `tail` finds of each source by itself. Raises: Unavailable."""
        found: list[list[Any]] = []
        for start in range(0, len(sources), SOURCES_PER_SELECT_MAX):
            part = sources[start : start + SOURCES_PER_SELECT_MAX]
            condition = of_symbol(query, part)
            narrow(condition)
            selects = []
            for number, source in enumerate(part):
                condition.parameters[f"source{number}"] = source
                selects.append(
                    f"(select {columns} from ticks"
                    f" where source = {{source{number}:String}} and {condition} {tail})"
                )
            found += await self._reads.rows(" union all ".join(selects), condition)
        return found
