"""A bridge with a bug, `python -m tests.faults.broken_bridge BUG`: the suite must find each, or it proves nothing."""

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any

import aiohttp
from clickhouse_connect.driver.exceptions import ClickHouseError

from bridge import __main__ as bridge
from bridge.writer import SourceWriter
from core.adapters.clickhouse.tick_store import INSERT_SETTINGS, ClickHouseTickStore
from core.errors.exceptions import UnknownOutcome
from core.ports.ticks import TickInsert

RETRY_PAUSE_S = 0.05
WINDOW = 1_000
_attempts = count()


def acknowledge_before_insert() -> None:
    """Tell the connector that ticks are durable, then store them."""

    async def make_durable(self: SourceWriter, insert: TickInsert) -> None:
        self._acknowledge(insert.block)
        with suppress(UnknownOutcome):
            await self._store.append(insert, self._lease.generation)

    SourceWriter._make_durable = make_durable  # type: ignore[method-assign]


def skip_the_drain() -> None:
    """Read back what is durable while an earlier insert may still be running."""

    async def drain(self: ClickHouseTickStore, source: str) -> None:
        await asyncio.sleep(0)

    ClickHouseTickStore.drain = drain  # type: ignore[method-assign]


def use_deduplication_tokens() -> None:
    """After an unknown outcome send the same block with the same token again, and trust the store to know it."""

    async def check(self: ClickHouseTickStore) -> None:
        await self._command(
            f"alter table ticks modify setting non_replicated_deduplication_window = {WINDOW}"
        )

    async def append(self: ClickHouseTickStore, insert: TickInsert, generation: int) -> None:
        block = insert.block
        token = f"{block.source}/{block.epoch}/{block.first_seq}-{block.last_seq}"
        while not await _accepted(self, insert, token):
            await asyncio.sleep(RETRY_PAUSE_S)

    ClickHouseTickStore.check = check  # type: ignore[method-assign]
    ClickHouseTickStore.append = append  # type: ignore[method-assign]


async def _accepted(store: ClickHouseTickStore, insert: TickInsert, token: str) -> bool:
    settings: dict[str, Any] = {
        **INSERT_SETTINGS,
        "insert_deduplicate": 1,
        "insert_deduplication_token": token,
        "query_id": f"ticks/{token}/{next(_attempts)}",
    }
    try:
        await store._clickhouse.client.raw_insert(
            "ticks", insert_block=b"".join(insert.body), fmt="Native", settings=settings
        )
    except (ClickHouseError, aiohttp.ClientError, OSError):
        return False
    return True


BUGS: dict[str, Callable[[], None]] = {
    "acknowledge-before-insert": acknowledge_before_insert,
    "skip-the-drain": skip_the_drain,
    "use-deduplication-tokens": use_deduplication_tokens,
}


if __name__ == "__main__":
    BUGS[sys.argv.pop(1)]()
    sys.exit(bridge.main())
