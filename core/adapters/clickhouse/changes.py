"""What the store of ticks says has changed: marks of its months, and the rows behind a position, by symbol and day.

Marks come from the table's parts and read no column. An insert's part is among them before its success is told, so
whatever a connector has been acknowledged is in every mark that is asked for afterwards.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from core.adapters.clickhouse.client import SHORT_QUERY_TIMEOUT_S, ClickHouse
from core.model.freshness import MS_PER_DAY, Change, Months, Position
from core.settings import Settings

_MONTHS: Final = (
    "select toUInt32OrZero(partition_id) as month, max(max_block_number) as blocks, sum(rows)"
    " from system.parts where database = currentDatabase() and table = 'ticks' and active group by month"
)
_NEWEST: Final = (
    "select epoch, max(seq) from ticks where source = {source:String} group by epoch"
    " order by epoch desc limit 1"
)
SOURCES_AT_ONCE_MAX: Final = 16
THREADS_MAX: Final = 2


def _behind(number: int) -> str:
    """Return the question about one source. Both indexes of the resume query serve it, on servers that use them for
    an `or`; others read more and answer the same.
    """
    epoch = f"{{epoch{number}:UInt32}}"
    return (
        f"select {number}, epoch, if(quarantine = 'OK', toString(symbol), null) as shown,"
        f" if(quarantine = 'OK', intDiv(time_msc, {MS_PER_DAY}), 0) as day, max(seq) from ticks"
        f" where source = {{source{number}:String}}"
        f" and (epoch = {epoch} and seq > {{seq{number}:UInt64}} or epoch > {epoch}) group by epoch, shown, day"
    )


class ClickHouseTickChanges:
    """The `TickChanges` port on ClickHouse."""

    def __init__(self, clickhouse: ClickHouse) -> None:
        self._clickhouse = clickhouse

    async def months(self) -> Months:
        rows = await self._rows(_MONTHS, {})
        return {month: (blocks, count) for month, blocks, count in rows}

    async def newest(self, source: str) -> Position:
        rows = await self._rows(_NEWEST, {"source": source})
        return (rows[0][0], rows[0][1]) if rows else (0, 0)

    async def since(self, positions: Mapping[str, Position]) -> Sequence[Change]:
        asked = list(positions.items())
        found: list[Change] = []
        for start in range(0, len(asked), SOURCES_AT_ONCE_MAX):
            found += await self._since(asked[start : start + SOURCES_AT_ONCE_MAX])
        return found

    async def _since(self, asked: Sequence[tuple[str, Position]]) -> list[Change]:
        parameters: dict[str, Any] = {}
        for number, (source, (epoch, seq)) in enumerate(asked):
            parameters |= {f"source{number}": source, f"epoch{number}": epoch, f"seq{number}": seq}
        select = " union all ".join(_behind(number) for number in range(len(asked)))
        return [
            Change(source=asked[number][0], position=(epoch, seq), symbol=symbol, day=day)
            for number, epoch, symbol, day, seq in await self._rows(select, parameters)
        ]

    async def _rows(self, select: str, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        settings = {"max_threads": THREADS_MAX}
        return await self._clickhouse.rows(
            select, parameters, timeout_s=SHORT_QUERY_TIMEOUT_S, settings=settings
        )


@asynccontextmanager
async def open_tick_changes(
    _settings: Settings, services: Mapping[str, Any]
) -> AsyncIterator[ClickHouseTickChanges]:
    yield ClickHouseTickChanges(services["clickhouse"])
