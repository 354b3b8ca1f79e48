"""Connect to ClickHouse over HTTP with bounds on everything, and turn its errors into ours."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp
from clickhouse_connect import get_async_client
from clickhouse_connect.driver import AsyncClient
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError, OperationalError

from core.errors.exceptions import Misconfigured, Unavailable
from core.model.breaker import Breaker
from core.settings import ClickHouseSettings, Settings
from core.telemetry import metrics, tracing
from core.telemetry.pools import PoolUse

Result = TypeVar("Result")
AUTHENTICATION_FAILED = 516
UNKNOWN_DATABASE = 81
SHORT_QUERY_TIMEOUT_S = 10.0
PING_TIMEOUT_S = 1
_numbers = itertools.count(1)


class ClickHouse:
    """One async client over a bounded connection pool."""

    def __init__(self, client: AsyncClient, query_timeout_s: float, connections_max: int = 1) -> None:
        self.client = client
        self.use = PoolUse("clickhouse", connections_max)
        self._breaker = Breaker()
        self._doubting = False
        self._query_timeout_s = query_timeout_s

    async def ping(self) -> None:
        if not await self.client.ping(timeout=PING_TIMEOUT_S):
            raise _away()

    async def version(self) -> str:
        """Return the server's version. Raises: Unavailable."""
        ((version,),) = await self.rows("select version()", timeout_s=PING_TIMEOUT_S)
        return str(version)

    async def rows(
        self,
        query: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Sequence[Sequence[Any]]:
        """Return the rows of a small answer. Raises: Unavailable."""
        limit_s = timeout_s or self._query_timeout_s
        # The server gives up when we do, or an abandoned scan would go on beside its own repetition.
        bounded = traced({**(settings or {}), "max_execution_time": limit_s})
        asking = self.client.query(query, parameters=dict(parameters or {}), settings=bounded)
        result = await self.ask(asking, timeout_s=limit_s)
        return list(result.result_rows)

    async def ask(self, answer: Awaitable[Result], *, timeout_s: float | None = None) -> Result:
        """Await a read of this client.

        Raises:
            Unavailable: the network, the time limit or the server said no; nothing was changed.
        """
        if not self._breaker.admit():
            metrics.STORE_REFUSED.labels("clickhouse").inc()
            if isinstance(answer, Coroutine):
                answer.close()
            raise _away()
        try:
            with self.use.asking():
                async with asyncio.timeout(timeout_s or self._query_timeout_s):
                    found = await answer
        except (ClickHouseError, aiohttp.ClientError, OSError, TimeoutError) as e:
            await self._judge(e)
            raise unavailable(e) from e
        self._breaker.succeeded()
        return found

    async def _judge(self, error: Exception) -> None:
        """Tell a store that is away from one that is only slow with what it was asked, or refuses it."""
        # The driver's error for a network that failed is one of the database's errors, too.
        if isinstance(error, DatabaseError) and not isinstance(error, OperationalError):
            self._breaker.succeeded()
        elif not isinstance(error, TimeoutError):
            self._breaker.failed()
        elif not self._doubting:
            self._doubting = True
            try:
                answers = await self.client.ping(timeout=PING_TIMEOUT_S)
            finally:
                self._doubting = False
            if answers:
                self._breaker.succeeded()
            else:
                self._breaker.failed()


def _away() -> Unavailable:
    return Unavailable("the tick store does not answer", code="STORE_UNAVAILABLE")


def traced(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return `settings` with a query id that begins with the trace's: it finds the query in system.processes and
    system.query_log, here and on a real server alike.
    """
    trace = tracing.CURRENT.get()
    if trace is None:
        return dict(settings)
    # A hop may ask several questions at once, and two queries of one id are refused.
    return {**settings, "query_id": f"{trace.trace_id}-{trace.span_id}-{next(_numbers):x}"}


def unavailable(error: Exception) -> Unavailable:
    detail = f"{type(error).__name__}: {str(error)[:300]}"
    return Unavailable("the tick store does not answer", code="STORE_UNAVAILABLE", detail=detail)


async def connect(clickhouse: ClickHouseSettings, database: str | None) -> AsyncClient:
    """Open a client; `database` None connects before our database exists.

    Raises:
        Unavailable: nobody answers yet. Misconfigured: wrong user or password.
    """
    try:
        async with asyncio.timeout(clickhouse.connect_timeout_s):
            return await get_async_client(
                host=clickhouse.host,
                port=clickhouse.port,
                username=clickhouse.user,
                password=clickhouse.password.reveal(),
                secure=clickhouse.secure,
                database=database or "default",
                compress=False,
                connect_timeout=clickhouse.connect_timeout_s,
                send_receive_timeout=clickhouse.query_timeout_s,
                connector_limit=clickhouse.connections_max,
                connector_limit_per_host=clickhouse.connections_max,
                autogenerate_session_id=False,
                query_retries=0,
            )
    except DatabaseError as e:
        if e.code == AUTHENTICATION_FAILED:
            raise Misconfigured("ClickHouse refuses our user or password", code="STORE_AUTH") from e
        if e.code == UNKNOWN_DATABASE:
            raise Unavailable("the tick store is not migrated yet", code="STORE_NOT_MIGRATED") from e
        raise unavailable(e) from e
    except (OperationalError, ClickHouseError, aiohttp.ClientError, OSError, TimeoutError) as e:
        raise unavailable(e) from e


@asynccontextmanager
async def open_client(settings: Settings, _services: Mapping[str, Any]) -> AsyncIterator[ClickHouse]:
    """Open the client on our database."""
    client = await connect(settings.clickhouse, settings.clickhouse.database)
    try:
        yield ClickHouse(client, settings.clickhouse.query_timeout_s, settings.clickhouse.connections_max)
    finally:
        await client.close()
