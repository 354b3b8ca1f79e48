"""Write the tick store down, a part for each month, and fill an empty one from it.

One table is append-only by (source, epoch, seq), in the order of seq: so the highest seq of each epoch, read once,
bounds a prefix without holes, whatever is inserted while the parts are read. The other tables are small; each of their
rows is read once, in text that counts itself.
"""

from collections.abc import AsyncIterable, AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from core.adapters.clickhouse.client import ClickHouse
from core.errors.exceptions import Unavailable
from core.ports.backups import Epochs, Sink
from core.settings import ClickHouseSettings, Settings

TICKS: Final = "ticks"
NOT_DUMPED: Final = frozenset({"schema_steps"})
PAGE_ROWS: Final = 131_072
"""Native takes about 100 bytes a tick: a page is some 13 MB."""
HOUR_MS: Final = 3_600_000
SMALL_PAGE_ROWS: Final = 16_384
INSERT_BYTES: Final = 32 * 1024**2
"""Pages are put together to inserts of this size, so that few parts are made."""
INSERT_TIMEOUT_S: Final = 120.0
SURVEY_TIMEOUT_S: Final = 600.0
INSERT_SETTINGS: Final[Mapping[str, Any]] = {"async_insert": 0, "insert_deduplicate": 0}


class ClickHouseSnapshot:
    """The `Snapshot` port on ClickHouse. bounds: by source and epoch, the highest seq that belongs to it."""

    def __init__(
        self,
        clickhouse: ClickHouse,
        limits: ClickHouseSettings,
        months: Sequence[str],
        tables: Mapping[str, str],
        bounds: Mapping[str, Mapping[int, int]],
    ) -> None:
        self._clickhouse = clickhouse
        self._settings = {"max_threads": 2, "max_memory_usage": limits.query_memory_bytes_max}
        self._months = months
        self._tables = tables
        self._bounds = bounds

    @property
    def parts(self) -> Sequence[str]:
        return [*(f"{TICKS}.{month}" for month in self._months), *self._tables]

    async def write(self, part: str, sink: Sink) -> None:
        table, _, month = part.partition(".")
        if table == TICKS:
            for source in self._bounds:
                await self._write_ticks(month, source, sink)
        else:
            await self._write_table(table, sink)

    async def _write_ticks(self, month: str, source: str, sink: Sink) -> None:
        condition, parameters = self._wanted(month, source)
        hours = await self._clickhouse.rows(
            f"select symbol, min(time_msc), max(time_msc), count() from ticks where {condition}"
            f" group by symbol, intDiv(time_msc, {HOUR_MS}) order by 1, 2",
            parameters,
            timeout_s=SURVEY_TIMEOUT_S,
            settings=self._settings,
        )
        for symbol, start, stop, rows in _pages(hours):
            body = await self._clickhouse.ask(
                self._clickhouse.client.raw_query(
                    f"select * from ticks where {condition} and symbol = {{symbol:String}}"
                    " and time_msc between {start:Int64} and {stop:Int64}",
                    parameters={**parameters, "symbol": symbol, "start": start, "stop": stop},
                    settings=self._settings,
                    fmt="Native",
                )
            )
            await sink(bytes(body), rows)
        # What was counted and what was read are two questions; only retention can have come between them.
        counted = await self._clickhouse.rows(
            f"select count() from ticks where {condition}", parameters, timeout_s=SURVEY_TIMEOUT_S
        )
        if counted[0][0] != sum(hour[3] for hour in hours):
            raise Unavailable(
                f"ticks of {month} were dropped meanwhile; run it again", code="BACKUP_DISTURBED"
            )

    def _wanted(self, month: str, source: str) -> tuple[str, dict[str, Any]]:
        bounds = self._bounds[source]
        condition = (
            "_partition_id = {month:String} and source = {source:String}"
            " and seq <= transform(epoch, {epochs:Array(UInt32)}, {lasts:Array(UInt64)}, toUInt64(0))"
        )
        return condition, {
            "month": month,
            "source": source,
            "epochs": list(bounds),
            "lasts": list(bounds.values()),
        }

    async def _write_table(self, table: str, sink: Sink) -> None:
        (counted,) = await self._clickhouse.rows(f"select count() from `{table}`")
        chunks = counted[0] // SMALL_PAGE_ROWS + 1
        for chunk in range(chunks):
            # A key's rows are in one chunk, so that a merge between two of them hides and doubles nothing.
            body = await self._clickhouse.ask(
                self._clickhouse.client.raw_query(
                    f"select * from `{table}` where cityHash64({self._tables[table]}) % {chunks} = {chunk}",
                    settings={**self._settings, "output_format_json_quote_64bit_integers": 0},
                    fmt="JSONEachRow",
                )
            )
            if body:
                await sink(bytes(body), bytes(body).count(b"\n"))


class ClickHouseLoading:
    """The `Loading` port on ClickHouse."""

    def __init__(self, clickhouse: ClickHouse, tables: Collection[str]) -> None:
        self._clickhouse = clickhouse
        self._tables = tables

    async def occupied(self) -> str:
        for table in self._tables:
            if await self._count(table):
                return f"table {table}"
        return ""

    async def clear(self) -> None:
        for table in self._tables:
            await self._clickhouse.ask(self._clickhouse.client.command(f"truncate table `{table}`"))

    def order(self, parts: Collection[str]) -> Sequence[str]:
        return sorted(parts)

    async def load(self, part: str, pieces: AsyncIterable[bytes]) -> int:
        table, _, month = part.partition(".")
        waiting: list[bytes] = []
        size = lines = 0
        async for piece in pieces:
            waiting.append(piece)
            size += len(piece)
            lines += piece.count(b"\n")
            if size >= INSERT_BYTES:
                await self._insert(table, waiting)
                waiting, size = [], 0
        if waiting:
            await self._insert(table, waiting)
        # Rows that replace each other are counted as they were acknowledged: a merge may have made fewer of them.
        return await self._count(table, month) if table == TICKS else lines

    async def _insert(self, table: str, pieces: Sequence[bytes]) -> None:
        async def body() -> AsyncIterator[bytes]:
            # A one-shot iterator on purpose: clickhouse-connect re-sends a body it can rewind.
            for piece in pieces:
                yield piece

        await self._clickhouse.ask(
            self._clickhouse.client.raw_insert(
                table,
                insert_block=body(),
                fmt="Native" if table == TICKS else "JSONEachRow",
                settings=dict(INSERT_SETTINGS),
            ),
            timeout_s=INSERT_TIMEOUT_S,
        )

    async def _count(self, table: str, month: str = "") -> int:
        condition = "where _partition_id = {month:String}" if month else ""
        rows = await self._clickhouse.rows(f"select count() from `{table}` {condition}", {"month": month})
        return int(rows[0][0])


class ClickHouseDumps:
    """The `Dumps` port on ClickHouse."""

    def __init__(self, clickhouse: ClickHouse, limits: ClickHouseSettings) -> None:
        self._clickhouse = clickhouse
        self._limits = limits

    @asynccontextmanager
    async def snapshot(self, epochs: Epochs) -> AsyncIterator[ClickHouseSnapshot]:
        found = await self._clickhouse.rows(
            "select source, epoch, max(seq) from ticks group by source, epoch", timeout_s=SURVEY_TIMEOUT_S
        )
        bounds: dict[str, dict[int, int]] = {}
        for source, epoch, last_seq in found:
            if epoch in epochs.get(source, ()):
                bounds.setdefault(source, {})[epoch] = last_seq
        months = await self._clickhouse.rows(
            "select distinct partition_id from system.parts where database = currentDatabase()"
            " and table = 'ticks' and active order by partition_id"
        )
        tables = {name: key for name, key in await self._tables() if name != TICKS}
        yield ClickHouseSnapshot(
            self._clickhouse, self._limits, [month for (month,) in months], tables, bounds
        )

    @asynccontextmanager
    async def loading(self) -> AsyncIterator[ClickHouseLoading]:
        yield ClickHouseLoading(self._clickhouse, [name for name, _ in await self._tables()])

    async def _tables(self) -> list[tuple[str, str]]:
        rows = await self._clickhouse.rows(
            "select name, sorting_key from system.tables where database = currentDatabase()"
            " and engine like '%MergeTree' order by name"
        )
        return [(name, key) for name, key in rows if name not in NOT_DUMPED]


def _pages(hours: Sequence[Sequence[Any]]) -> list[tuple[str, int, int, int]]:
    """Put neighbouring hours of a symbol together: symbol, first and last millisecond, rows."""
    pages: list[tuple[str, int, int, int]] = []
    for symbol, start, stop, rows in hours:
        if pages and pages[-1][0] == symbol and pages[-1][3] + rows <= PAGE_ROWS:
            _, first, _, before = pages.pop()
            pages.append((symbol, first, stop, before + rows))
        else:
            pages.append((symbol, start, stop, rows))
    return pages


@asynccontextmanager
async def open_dumps(settings: Settings, services: Mapping[str, Any]) -> AsyncIterator[ClickHouseDumps]:
    yield ClickHouseDumps(services["clickhouse"], settings.clickhouse)
