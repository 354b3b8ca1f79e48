"""Connect to ArangoDB with bounds on everything, and turn its errors into ours.

The vendor's driver blocks, so it works in threads, as many as may ask at a time. Its own retries are off: they repeat
writes, and hold a thread for a minute when nobody answers. A thread whose caller has given up keeps its place until
the driver's own time limit frees it; those who find no place are told so.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from arango.client import ArangoClient
from arango.database import StandardDatabase
from arango.exceptions import ArangoClientError, ArangoServerError
from arango.http import DefaultHTTPClient
from requests.exceptions import RequestException

from core.errors.exceptions import Defect, Misconfigured, TickgateError, Unavailable
from core.model.breaker import Breaker
from core.settings import ArangoSettings, Settings
from core.telemetry import metrics
from core.telemetry.pools import PoolUse

Result = TypeVar("Result")

STEPS_COLLECTION: Final = "tickgate_schema"
"""Where the steps of our schema are noted."""
PING_TIMEOUT_S: Final = 1.0
VERSION_MIN: Final = (3, 11)
UNAUTHORIZED: Final = frozenset({11, 401, 403})
NO_DATABASE: Final = 1228
NO_COLLECTION: Final = 1203
LOCK_TIMEOUT: Final = 18
WRITE_CONFLICT: Final = 1200
READ_ONLY: Final = 1004
QUERY_KILLED: Final = 1500
TRANSACTION_LOST: Final = frozenset({1654, 1655})
PASSING: Final = TRANSACTION_LOST | {
    LOCK_TIMEOUT,
    WRITE_CONFLICT,
    READ_ONLY,
    QUERY_KILLED,
    21,
    22,
    28,
    32,
    503,
    1429,
    1496,
}
"""Error numbers of what may go well the next time: limits, conflicts, a server that starts, stops or fails over."""
RETRIED: Final = PASSING - {QUERY_KILLED, READ_ONLY}
"""Those of them where it may go well at once."""
_ERRORS: Final = (ArangoServerError, ArangoClientError, RequestException, OSError, TimeoutError)


class Arango:
    """One database, and the threads that may ask it at a time."""

    def __init__(
        self, database: StandardDatabase, settings: ArangoSettings, threads: ThreadPoolExecutor
    ) -> None:
        self.database = database
        self._threads = threads
        self.use = PoolUse("arango", settings.connections_max)
        self._breaker = Breaker()
        self._places = asyncio.Semaphore(settings.connections_max)
        self._acquire_timeout_s = settings.connect_timeout_s
        self._query_timeout_s = settings.query_timeout_s

    async def ask(
        self, question: Callable[[StandardDatabase], Result], *, timeout_s: float | None = None
    ) -> Result:
        """Return the answer to a question asked in a thread, once there is one.

        Raises:
            Unavailable: there was no thread in time, no answer in time, or ArangoDB cannot do it now.
            Defect: it refuses what it was asked. ArangoServerError is passed on where `question` itself looks at it.
        """
        if not self._breaker.admit():
            metrics.STORE_REFUSED.labels("arango").inc()
            raise Unavailable("ArangoDB does not answer", code="TOPOLOGY_UNAVAILABLE", detail="left alone")
        with self.use.asking():
            try:
                with self.use.acquiring():
                    async with asyncio.timeout(self._acquire_timeout_s):
                        await self._places.acquire()
            except TimeoutError as e:
                raise Unavailable("too many ask ArangoDB at once", code="TOPOLOGY_UNAVAILABLE") from e
            return await self._answered(question, timeout_s or self._query_timeout_s)

    async def _answered(self, question: Callable[[StandardDatabase], Result], timeout_s: float) -> Result:
        answer = asyncio.get_running_loop().run_in_executor(self._threads, question, self.database)
        answer.add_done_callback(self._leave)
        try:
            async with asyncio.timeout(timeout_s):
                # A thread cannot be stopped: whoever gives up leaves it to its own time limit.
                found = await asyncio.shield(answer)
        except ArangoServerError as e:
            self._breaker.succeeded()
            raise translated(e) from e
        except _ERRORS as e:
            self._breaker.failed()
            raise translated(e) from e
        except TickgateError:
            self._breaker.succeeded()
            raise
        self._breaker.succeeded()
        return found

    def _leave(self, answer: "asyncio.Future[Any]") -> None:
        self._places.release()
        if not answer.cancelled():
            # Whoever asked may have gone: then nobody else looks at it.
            answer.exception()

    async def ping(self) -> None:
        """Ask whether our schema can be read. Raises: Unavailable."""
        await self.ask(lambda database: database.has_collection(STEPS_COLLECTION), timeout_s=PING_TIMEOUT_S)

    async def version(self) -> str:
        """Return the server's version. Raises: Unavailable."""
        return str(await self.ask(lambda database: database.version(), timeout_s=PING_TIMEOUT_S))


def translated(error: Exception) -> TickgateError:
    """Return our error for one of the vendor's."""
    detail = f"{type(error).__name__}: {str(error)[:300]}"
    if not isinstance(error, ArangoServerError):
        return Unavailable("ArangoDB does not answer", code="TOPOLOGY_UNAVAILABLE", detail=detail)
    if error.error_code in PASSING or (error.http_code or 500) >= 500:
        return Unavailable("ArangoDB cannot do it now", code="TOPOLOGY_UNAVAILABLE", detail=detail)
    if error.error_code in UNAUTHORIZED or error.http_code in UNAUTHORIZED:
        return Misconfigured("ArangoDB refuses our user or password", code="TOPOLOGY_AUTH")
    if error.error_code == NO_DATABASE:
        return Misconfigured("ArangoDB has no such database; make it first", code="TOPOLOGY_NO_DATABASE")
    if error.error_code == NO_COLLECTION:
        return Unavailable(
            "the topology is not migrated yet; run `tickgate migrate`", code="STORE_NOT_MIGRATED"
        )
    return Defect("ArangoDB refuses what it was asked", detail=detail)


@asynccontextmanager
async def connect(settings: ArangoSettings) -> AsyncIterator[Arango]:
    """Open a client and see whom it has reached.

    Raises: Unavailable: nobody answers yet. Misconfigured: wrong user, password or database, or too old a server.
    """
    scheme = "https" if settings.secure else "http"
    client = ArangoClient(
        hosts=f"{scheme}://{settings.host}:{settings.port}",
        resolver_max_tries=1,
        http_client=DefaultHTTPClient(
            request_timeout=settings.query_timeout_s,
            retry_attempts=0,
            pool_connections=settings.connections_max,
            pool_maxsize=settings.connections_max,
            pool_timeout=settings.connect_timeout_s,
        ),
    )
    database = client.db(settings.database, username=settings.user, password=settings.password.reveal())
    threads = ThreadPoolExecutor(settings.connections_max, thread_name_prefix="arango")
    try:
        arango = Arango(database, settings, threads)
        _require_new_enough(
            await arango.ask(lambda database: database.version(), timeout_s=settings.connect_timeout_s)
        )
        yield arango
    finally:
        # Not waited for: a thread that hangs ends with the driver's time limit.
        threads.shutdown(wait=False, cancel_futures=True)
        client.close()


def _require_new_enough(version: Any) -> None:
    numbers = tuple(int(part) for part in str(version).split("-")[0].split(".")[:2] if part.isdigit())
    if len(numbers) < 2:
        raise Misconfigured("what answers at arango.host is no ArangoDB", code="TOPOLOGY_UNKNOWN")
    if numbers < VERSION_MIN:
        raise Misconfigured("ArangoDB is too old: 3.11 or newer is needed", code="TOPOLOGY_TOO_OLD")


@asynccontextmanager
async def open_client(settings: Settings, _services: Mapping[str, Any]) -> AsyncIterator[Arango]:
    """Open the client; whether its schema is there is for the hub to ask. Raises: Unavailable, Misconfigured."""
    async with connect(settings.arango) as arango:
        yield arango
