"""Connect to Weaviate with bounds on everything, and turn its errors into ours.

The vendor's own checks at the start are skipped: they ask the package index whether there is a newer client. Its pool
settings hold for proxied connections only, its searches are tried again for half a minute, and its own ping prints
to stdout. So how many requests are under way, and for how long, is bounded here.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import httpx
from grpc.aio import AioRpcError

from core.adapters.weaviate.driver import (
    AdditionalConfig,
    Auth,
    AuthenticationFailedError,
    CollectionAsync,
    ConnectionParams,
    ConsistencyLevel,
    InsufficientPermissionsError,
    Timeout,
    UnexpectedStatusCodeError,
    WeaviateAsyncClient,
    WeaviateBaseError,
    WeaviateStartUpError,
)
from core.errors.exceptions import Defect, Misconfigured, TickgateError, Unavailable
from core.model.breaker import Breaker
from core.settings import Settings, WeaviateSettings
from core.telemetry import metrics
from core.telemetry.pools import PoolUse

Result = TypeVar("Result")
STEPS_COLLECTION: Final = "TickgateSchema"
"""Where the steps of our schema are noted."""
PING_TIMEOUT_S: Final = 1.0
REFUSED: Final = frozenset({400, 404, 405, 413, 422})
FORBIDDEN: Final = frozenset({401, 403})
_ERRORS: Final = (WeaviateBaseError, httpx.HTTPError, AioRpcError, OSError, TimeoutError)


class Weaviate:
    """One client, and how many may ask it at a time."""

    def __init__(self, client: WeaviateAsyncClient, settings: WeaviateSettings) -> None:
        self.client = client
        self.use = PoolUse("weaviate", settings.connections_max)
        self._breaker = Breaker()
        self._slots = asyncio.Semaphore(settings.connections_max)
        self._acquire_timeout_s = settings.connect_timeout_s
        self._query_timeout_s = settings.query_timeout_s

    def collection(self, name: str, tenant: str | None = None) -> CollectionAsync[Any, Any]:
        """Return a collection, of one tenant where it is cut into tenants. Reads see what writes have answered."""
        collection = self.client.collections.use(name).with_consistency_level(ConsistencyLevel.QUORUM)
        return collection.with_tenant(tenant) if tenant else collection

    async def ask(
        self, question: Callable[[], Awaitable[Result]], *, timeout_s: float | None = None
    ) -> Result:
        """Await the answer to a question asked once there is room.

        Raises:
            Unavailable: there was no room in time, no answer in time, or Weaviate cannot do it now.
            Defect: it refuses what it was asked.
        """
        if not self._breaker.admit():
            metrics.STORE_REFUSED.labels("weaviate").inc()
            raise Unavailable("Weaviate does not answer", code="SIMILARITY_UNAVAILABLE", detail="left alone")
        with self.use.asking():
            try:
                with self.use.acquiring():
                    async with asyncio.timeout(self._acquire_timeout_s):
                        await self._slots.acquire()
            except TimeoutError as e:
                raise Unavailable("too many ask Weaviate at once", code="SIMILARITY_UNAVAILABLE") from e
            try:
                async with asyncio.timeout(timeout_s or self._query_timeout_s):
                    found = await question()
            except _ERRORS as e:
                refused = translated(e)
                if isinstance(refused, Unavailable):
                    self._breaker.failed()
                else:
                    self._breaker.succeeded()
                raise refused from e
            finally:
                self._slots.release()
        self._breaker.succeeded()
        return found

    async def version(self) -> str:
        """Return the server's version. Raises: Unavailable."""
        return str((await self.ask(self.client.get_meta, timeout_s=PING_TIMEOUT_S))["version"])

    async def ping(self) -> None:
        """Ask over both its protocols. Raises: Unavailable."""
        steps = self.collection(STEPS_COLLECTION)
        await self.ask(self.client.get_meta, timeout_s=PING_TIMEOUT_S)
        await self.ask(lambda: steps.query.fetch_objects(limit=1), timeout_s=PING_TIMEOUT_S)


def translated(error: Exception) -> TickgateError:
    """Return our error for one of the vendor's."""
    detail = f"{type(error).__name__}: {str(error)[:300]}"
    if isinstance(error, UnexpectedStatusCodeError) and error.status_code in REFUSED:
        return Defect("Weaviate refuses what it was asked", detail=detail)
    return Unavailable("Weaviate does not answer", code="SIMILARITY_UNAVAILABLE", detail=detail)


@asynccontextmanager
async def connect(settings: WeaviateSettings) -> AsyncIterator[Weaviate]:
    """Open a client. Raises: Unavailable: nobody answers yet. Misconfigured: wrong key or too old a server."""
    # It logs the records of a batch that failed.
    logging.getLogger("weaviate-client").setLevel(logging.CRITICAL)
    client = WeaviateAsyncClient(
        connection_params=ConnectionParams.from_params(
            http_host=settings.host,
            http_port=settings.port,
            http_secure=settings.secure,
            grpc_host=settings.host,
            grpc_port=settings.grpc_port,
            grpc_secure=settings.secure,
        ),
        auth_client_secret=Auth.api_key(settings.api_key.reveal()) if settings.api_key else None,
        additional_config=AdditionalConfig(
            timeout=Timeout(
                init=settings.connect_timeout_s,
                query=settings.query_timeout_s,
                insert=settings.query_timeout_s,
            )
        ),
        skip_init_checks=True,
    )
    try:
        await _start(client, settings.connect_timeout_s)
        yield Weaviate(client, settings)
    finally:
        await client.close()


async def _start(client: WeaviateAsyncClient, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await client.connect()
    except (AuthenticationFailedError, InsufficientPermissionsError) as e:
        raise _refused() from e
    except UnexpectedStatusCodeError as e:
        raise (_refused() if e.status_code in FORBIDDEN else translated(e)) from e
    except WeaviateStartUpError as e:
        if e.__cause__ is None:
            raise Misconfigured(
                "Weaviate is too old: 1.27 or newer is needed", code="SIMILARITY_TOO_OLD"
            ) from e
        raise translated(e) from e
    except (KeyError, ValueError) as e:
        raise Misconfigured("what answers at weaviate.host is no Weaviate", code="SIMILARITY_UNKNOWN") from e
    except _ERRORS as e:
        raise translated(e) from e


def _refused() -> Misconfigured:
    return Misconfigured("Weaviate refuses our key", code="SIMILARITY_AUTH")


@asynccontextmanager
async def open_client(settings: Settings, _services: Mapping[str, Any]) -> AsyncIterator[Weaviate]:
    """Open the client; whether its schema is there is for the hub to ask. Raises: Unavailable, Misconfigured."""
    async with connect(settings.weaviate) as weaviate:
        yield weaviate
