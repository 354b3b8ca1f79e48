"""Locks of PostgreSQL: an advisory lock for the length of a transaction, gone with the connection that holds it.

A lock keeps one connection of the pool while it is held, or waited for. So at most half of them do that at a time, and
of those who wait for one name in this process only the first has a connection. Whoever holds a lock may therefore use
the pool as well, if it has more than one connection, but must not ask for a second lock.
"""

import asyncio
import hashlib
import weakref
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import asyncpg

from core.adapters.postgres.pool import Postgres
from core.errors.exceptions import Conflict, TickgateError, Unavailable
from core.settings import Settings

WAIT_S: Final = 5.0
"""How long a lock that others hold is waited for."""
HELD_S_MAX: Final = 20.0
"""A block that takes longer is cancelled, before the server takes the lock away from a peer that it takes for dead."""
ABANDONED_S: Final = 40.0


class PostgresLocks:
    """The `Locks` port on PostgreSQL."""

    def __init__(
        self, postgres: Postgres, holders_max: int, *, wait_s: float = WAIT_S, held_s_max: float = HELD_S_MAX
    ) -> None:
        self._postgres = postgres
        self._wait_s = wait_s
        self._held_s_max = held_s_max
        self._seats = asyncio.Semaphore(holders_max)
        self._ours: weakref.WeakValueDictionary[int, asyncio.Lock] = weakref.WeakValueDictionary()

    @asynccontextmanager
    async def held(self, tenant: str, kind: str, record_id: str) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await self._take(stack, _key(tenant, kind, record_id))
            try:
                async with asyncio.timeout(self._held_s_max) as limit:
                    yield
            except TimeoutError as e:
                if not limit.expired():
                    raise
                raise Unavailable("it took too long", code="LOCK_EXPIRED") from e

    async def _take(self, stack: AsyncExitStack, key: int) -> None:
        ours = self._ours.setdefault(key, asyncio.Lock())
        first = False
        try:
            async with asyncio.timeout(self._wait_s) as limit:
                await stack.enter_async_context(ours)
                first = True
                await stack.enter_async_context(self._seats)
        except TimeoutError as e:
            if not first:
                raise _busy() from e
            raise Unavailable("too many write at once; try again", code="LEDGER_UNAVAILABLE") from e
        deadline = limit.when()
        assert deadline is not None
        left_ms = max(1, int((deadline - asyncio.get_running_loop().time()) * 1_000))
        connection = await stack.enter_async_context(self._postgres.acquire())
        await stack.enter_async_context(connection.transaction())
        await connection.execute(
            "select set_config('lock_timeout', $1, true),"
            " set_config('idle_in_transaction_session_timeout', $2, true)",
            str(left_ms),
            str(int(ABANDONED_S * 1_000)),
        )
        try:
            await connection.execute("select pg_advisory_xact_lock($1)", key)
        except asyncpg.LockNotAvailableError as e:
            raise _busy() from e


def _busy() -> TickgateError:
    return Conflict("others are writing this record; try again", code="RECORD_BUSY")


def _key(tenant: str, kind: str, record_id: str) -> int:
    name = "\0".join(("record", tenant, kind, record_id))
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), signed=True)


@asynccontextmanager
async def open_locks(settings: Settings, services: Mapping[str, Any]) -> AsyncIterator[PostgresLocks]:
    yield PostgresLocks(services["postgres"], max(1, settings.postgres.connections_max // 2))
