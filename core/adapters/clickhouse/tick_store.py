"""The store of ticks as the bridge uses it: atomic fsynced inserts, drain, and the one authority on what is durable.

What ClickHouse guarantees and what it does not was measured: one insert of one block in one partition is all or
nothing; tokens lose rows under kill -9; a lost answer says nothing. So nothing here ever retries an insert.
"""

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, Final, cast

import aiohttp
import numpy as np
import numpy.typing as npt
from clickhouse_connect.driver.exceptions import ClickHouseError

from core.adapters.clickhouse import native
from core.adapters.clickhouse.client import SHORT_QUERY_TIMEOUT_S, ClickHouse
from core.errors.exceptions import Misconfigured, Unavailable, UnknownOutcome
from core.model.ticks import MarketCursor, TickBlock, slice_block
from core.ports.ticks import TickInsert
from core.settings import Settings

DRAIN_TIMEOUT_S: Final = 60.0
SERVER_AHEAD_MS_MAX: Final = 15 * 3_600_000
"""No trade server's clock is further ahead of UTC; a tick that claims to be must not set a cursor."""
KILL_TIMEOUT_S: Final = 5.0
"""Then it is asked again, on another connection: the pool's may be half open, like the one whose insert was cut."""
INSERT_SETTINGS: Final[dict[str, Any]] = {
    # On by default in servers since 26.2; either would let an answer come before the rows are on disk or
    # let a replayed block be swallowed.
    "async_insert": 0,
    "insert_deduplicate": 0,
    "max_insert_threads": 1,
    "max_partitions_per_insert_block": 1,
}
REQUIRED_TABLE_SETTINGS: Final = (
    "fsync_after_insert = 1",
    "fsync_part_directory = 1",
    "old_parts_lifetime = 480",
    "non_replicated_deduplication_window = 0",
)


class ClickHouseTickStore:
    """The `TickStore` port on ClickHouse."""

    def __init__(self, clickhouse: ClickHouse, insert_timeout_s: float) -> None:
        self._clickhouse = clickhouse
        self._insert_timeout_s = insert_timeout_s

    async def check(self) -> None:
        """Refuse to run on a table that would acknowledge what is not durable.

        Raises:
            Unavailable: the table is not there yet. Misconfigured: its settings are not ours.
        """
        ddl = str(
            await self._scalar(
                "select create_table_query from system.tables where database = "
                "currentDatabase() and name = 'ticks'",
                {},
            )
            or ""
        )
        if not ddl:
            raise Unavailable("the tick store is not migrated yet", code="STORE_NOT_MIGRATED")
        missing = [setting for setting in REQUIRED_TABLE_SETTINGS if setting not in ddl]
        if missing:
            raise Misconfigured(f"table ticks must be set to {', '.join(missing)}", code="STORE_NOT_DURABLE")

    async def durable_seq(self, source: str, epoch: int, floor: int = 0) -> int:
        found = await self._max_seq(source, epoch, floor)
        # Nothing at or above a floor that was durable once: rows were taken from the store. Look at all of it.
        return await self._max_seq(source, epoch, 0) if floor and not found else found

    async def _max_seq(self, source: str, epoch: int, floor: int) -> int:
        return int(
            await self._scalar(
                "select max(seq) from ticks where source = {source:String} and epoch = {epoch:UInt32}"
                " and seq >= {floor:UInt64}",
                {"source": source, "epoch": epoch, "floor": floor},
            )
        )

    async def drain(self, source: str) -> None:
        pattern = _query_id_prefix(source).replace("_", r"\_") + "%"
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                await self._command(f"kill query where query_id like '{pattern}' sync")
                while await self._scalar(  # noqa: ASYNC110 - only the store knows
                    f"select count() from system.processes where query_id like '{pattern}'", {}
                ):
                    await asyncio.sleep(0.02)
        except TimeoutError as e:
            raise Unavailable(f"inserts of {source} do not end", code="DRAIN_TIMEOUT") from e

    def prepare(self, block: TickBlock) -> Sequence[TickInsert]:
        return [TickInsert(block=piece, body=tuple(native.encode(piece))) for piece in _by_month(block)]

    async def append(self, insert: TickInsert, generation: int) -> None:
        async def body() -> AsyncIterator[bytes | memoryview]:
            # A one-shot iterator on purpose: clickhouse-connect re-sends a body it can rewind when the server
            # closes the connection, and a re-sent insert is a doubled one.
            for piece in insert.body:
                yield piece

        block = insert.block
        query_id = (
            f"{_query_id_prefix(block.source)}{generation}/{block.epoch}/{block.first_seq}-{block.last_seq}"
        )
        try:
            async with asyncio.timeout(self._insert_timeout_s):
                await self._clickhouse.client.raw_insert(
                    "ticks",
                    insert_block=cast("AsyncIterable[bytes]", body()),
                    fmt="Native",
                    settings={**INSERT_SETTINGS, "query_id": query_id},
                )
        except (ClickHouseError, aiohttp.ClientError, OSError, TimeoutError) as e:
            detail = f"{type(e).__name__}: {str(e)[:300]}"
            raise UnknownOutcome(
                "an insert was not confirmed", code="INSERT_UNCONFIRMED", detail=detail
            ) from e

    async def cursors(self, source: str) -> Mapping[str, MarketCursor]:
        newest = await self._rows(
            "select symbol, max(time_msc) as newest from ticks"
            " where source = {source:String} and time_msc between 0 and {latest:Int64} group by symbol",
            {"source": source, "latest": time.time_ns() // 1_000_000 + SERVER_AHEAD_MS_MAX},
        )
        found: dict[str, MarketCursor] = {}
        for symbol, time_msc in newest:
            count = await self._scalar(
                "select count() from ticks where source = {source:String} and symbol = {symbol:String}"
                " and time_msc = {time:Int64}",
                {"source": source, "symbol": symbol, "time": time_msc},
            )
            found[symbol] = MarketCursor(time_msc=time_msc, count=int(count))
        return found

    async def _scalar(self, query: str, parameters: dict[str, Any]) -> Any:
        rows = await self._rows(query, parameters)
        return rows[0][0] if rows else None

    async def _rows(self, query: str, parameters: dict[str, Any]) -> Sequence[Sequence[Any]]:
        return await self._clickhouse.rows(query, parameters, timeout_s=SHORT_QUERY_TIMEOUT_S)

    async def _command(self, query: str) -> None:
        await self._clickhouse.ask(self._clickhouse.client.command(query), timeout_s=KILL_TIMEOUT_S)


PARTITIONED_MSC_MAX: Final = 4_102_444_799_999
"""The end of 2099; what lies beyond, or before 1970, shares one partition (see 0001_ticks.sql)."""


def _by_month(block: TickBlock) -> Sequence[TickBlock]:
    """Cut the block where two neighbours lie in different partitions, as the table's PARTITION BY has it."""
    time_msc = np.ascontiguousarray(block.rows["time_msc"])
    first, last = _months(np.array([time_msc.min(), time_msc.max()]))
    if first == last >= 0:
        return (block,)
    months = _months(time_msc)
    cuts = np.flatnonzero(months[1:] != months[:-1]) + 1
    edges = [0, *cuts.tolist(), len(block)]
    return tuple(slice_block(block, start, stop) for start, stop in pairwise(edges))


def _months(time_msc: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    sane = (time_msc >= 0) & (time_msc <= PARTITIONED_MSC_MAX)
    seconds = np.where(sane, time_msc, 0) // 1_000
    return np.where(sane, seconds.astype("datetime64[s]").astype("datetime64[M]").astype(np.int64), -1)


def _query_id_prefix(source: str) -> str:
    return f"ticks/{source}/"


@asynccontextmanager
async def open_tick_store(
    settings: Settings, services: Mapping[str, Any]
) -> AsyncIterator[ClickHouseTickStore]:
    """Open the store; waits for its table and refuses one that is not durable."""
    store = ClickHouseTickStore(services["clickhouse"], settings.bridge.insert_timeout_s)
    await store.check()
    yield store
