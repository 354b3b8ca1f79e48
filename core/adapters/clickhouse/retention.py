"""Dropping what has outlived its retention: whole months, and only quiet ones."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from core.adapters.clickhouse.client import ClickHouse
from core.ports.ticks import ExpiredMonth
from core.settings import Settings

QUIET_S_MIN: Final = 3_600
"""A month that was written to within this time may be written to again while it is dropped; it waits."""


class ClickHouseRetention:
    """The `Retention` port on ClickHouse."""

    def __init__(self, clickhouse: ClickHouse, quiet_s_min: int = QUIET_S_MIN) -> None:
        self._clickhouse = clickhouse
        self._quiet_s_min = quiet_s_min

    async def expired(self, before_ms: int) -> Sequence[ExpiredMonth]:
        months = await self._clickhouse.rows(
            "select partition_id from (select partition_id, max(modification_time) as written from system.parts"
            " where database = currentDatabase() and table = 'ticks' and active group by partition_id)"
            " where toUInt32OrZero(partition_id) between 197001 and 209912"
            " and toUInt32OrZero(partition_id) < toYYYYMM(toDateTime({before:Int64}, 'UTC'))"
            " and written < now() - {quiet:Int64} order by partition_id",
            {"before": before_ms // 1_000, "quiet": self._quiet_s_min},
        )
        return [ExpiredMonth(name=month, contents=await self._contents(month)) for (month,) in months]

    async def drop(self, month: ExpiredMonth) -> None:
        statement = f"alter table ticks drop partition id '{int(month.name)}'"
        await self._clickhouse.ask(self._clickhouse.client.command(statement))

    async def _contents(self, month: str) -> Mapping[tuple[str, int], tuple[int, int]]:
        rows = await self._clickhouse.rows(
            "select source, epoch, count(), max(seq) from ticks where _partition_id = {month:String}"
            " group by source, epoch",
            {"month": month},
        )
        return {(source, epoch): (count, last_seq) for source, epoch, count, last_seq in rows}


@asynccontextmanager
async def open_retention(
    _settings: Settings, services: Mapping[str, Any]
) -> AsyncIterator[ClickHouseRetention]:
    yield ClickHouseRetention(services["clickhouse"])
