"""Connect to PostgreSQL with bounds on everything, and turn its errors into ours."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import asyncpg

from core.errors.exceptions import Defect, Misconfigured, Unavailable
from core.model.breaker import Breaker
from core.settings import PostgresSettings, Settings
from core.telemetry import metrics, tracing
from core.telemetry.pools import PoolUse

CONNECTION_ERRORS = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.InterfaceError,
    # The server has said that it dies, and the line has not been closed yet.
    asyncpg.InternalClientError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
)


class Postgres:
    """A bounded pool. `acquire` never waits for ever; `ping` costs one round trip."""

    def __init__(self, pool: asyncpg.Pool, acquire_timeout_s: float) -> None:
        self.pool = pool
        self.use = PoolUse("postgres", pool.get_max_size())
        self._breaker = Breaker()
        self._acquire_timeout_s = acquire_timeout_s

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[asyncpg.Connection]:
        """Borrow a connection.

        Raises:
            Unavailable: PostgreSQL is away, or no connection came free in time.
        """
        if not self._breaker.admit():
            metrics.STORE_REFUSED.labels("postgres").inc()
            raise Unavailable("the ledger does not answer", code="LEDGER_UNAVAILABLE", detail="left alone")
        answered: bool | None = True
        try:
            with self.use.asking():
                async with self._acquired() as connection:
                    yield connection
        except CONNECTION_ERRORS as e:
            answered = False
            raise Unavailable("the ledger does not answer", code="LEDGER_UNAVAILABLE", detail=repr(e)) from e
        except (
            asyncpg.DataError,
            asyncpg.IntegrityConstraintViolationError,
            asyncpg.SyntaxOrAccessError,
        ) as e:
            raise Defect("the ledger refuses what it was asked", detail=repr(e)[:300]) from e
        except asyncpg.PostgresError as e:
            # Disk full, read-only after a failover, cancelled: it is there, and cannot do it now.
            raise Unavailable(
                "the ledger cannot do it now", code="LEDGER_UNAVAILABLE", detail=repr(e)[:300]
            ) from e
        except (asyncio.CancelledError, GeneratorExit):
            # Whoever gives up has heard nothing: a silent store must not look well to the others for it.
            answered = None
            raise
        finally:
            if answered:
                self._breaker.succeeded()
            elif answered is False:
                self._breaker.failed()

    @asynccontextmanager
    async def _acquired(self) -> AsyncIterator[asyncpg.Connection]:
        async with AsyncExitStack() as stack:
            with self.use.acquiring():
                acquiring = self.pool.acquire(timeout=self._acquire_timeout_s)
                connection = await stack.enter_async_context(acquiring)
            yield connection

    @asynccontextmanager
    async def of_tenant(
        self, tenant: str, *, durable: bool = True, first: str = ""
    ) -> AsyncIterator[asyncpg.Connection]:
        """Borrow a connection inside a transaction that sees and writes this tenant's rows only.

        Row-level security sees to it whatever the SQL says. durable: False does not wait for the disk; a crash of the
        server may lose what was committed, though never without all that was committed later. first: a statement to
        begin with, in the same round trip, `{tenant}` in it being the tenant. No transaction is opened within. Raises
        as `acquire` does.
        """
        trace = tracing.CURRENT.get()
        application = f"tickgate {trace.trace_id}" if trace else "tickgate"
        opening = (
            "begin; select set_config('role', 'tickgate_tenant', true),"
            f" set_config('tickgate.tenant', {_literal(tenant)}, true),"
            f" set_config('application_name', {_literal(application)}, true)"
        )
        if not durable:
            opening += ", set_config('synchronous_commit', 'off', true)"
        if first:
            opening += f"; {first.format(tenant=_literal(tenant))}"
        async with self.acquire() as connection:
            try:
                # One round trip instead of two, which asyncpg's own transactions would take.
                await connection.execute(opening)
                yield connection
            except BaseException:
                if not connection.is_closed():
                    await connection.execute("rollback")
                raise
            await connection.execute("commit")

    async def ping(self) -> None:
        async with self.acquire() as connection:
            await connection.fetchval("select 1", timeout=1)

    async def version(self) -> str:
        """Return the server's version. Raises as `acquire` does."""
        async with self.acquire() as connection:
            return str(await connection.fetchval("show server_version", timeout=1))


@asynccontextmanager
async def open_pool(settings: Settings, _services: Mapping[str, Any]) -> AsyncIterator[Postgres]:
    """Open the pool; connections beyond the first are made when they are needed.

    Raises:
        Unavailable: nobody answers yet. Misconfigured: wrong password or no such database.
    """
    postgres = settings.postgres
    with _translated():
        pool = await asyncpg.create_pool(
            **_connection_arguments(postgres, "tickgate"),
            min_size=1,
            max_size=postgres.connections_max,
            reset=_nothing_to_reset,
        )
    try:
        yield Postgres(pool, postgres.acquire_timeout_s)
    finally:
        try:
            async with asyncio.timeout(2):
                await pool.close()
        except TimeoutError:
            pool.terminate()


def _literal(text: str) -> str:
    """Return a text as SQL that holds nothing of it but hexadecimal digits, whatever it says."""
    return f"convert_from(decode('{text.encode().hex()}', 'hex'), 'UTF8')"


async def _nothing_to_reset(_connection: asyncpg.Connection) -> None:
    """Save a round trip each time a connection comes back: whatever is set on one ends with its transaction.

    asyncpg rolls back what is still open, and stops listening, before it asks us.
    """


async def connect(postgres: PostgresSettings, application_name: str) -> asyncpg.Connection:
    """Open a connection of one's own, outside the pool. Raises as `open_pool` does."""
    with _translated():
        return await asyncpg.connect(**_connection_arguments(postgres, application_name))


def _connection_arguments(postgres: PostgresSettings, application_name: str) -> dict[str, Any]:
    return {
        "host": postgres.host,
        "port": postgres.port,
        "user": postgres.user,
        "password": postgres.password.reveal(),
        "database": postgres.database,
        "ssl": "verify-full" if postgres.secure else False,
        "timeout": postgres.connect_timeout_s,
        "command_timeout": postgres.command_timeout_s,
        "server_settings": {"application_name": application_name},
    }


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError) as e:
        raise Misconfigured("PostgreSQL refuses our user or password", code="LEDGER_AUTH") from e
    except asyncpg.InvalidCatalogNameError as e:
        raise Unavailable("the ledger is not migrated yet", code="STORE_NOT_MIGRATED", detail=repr(e)) from e
    except CONNECTION_ERRORS as e:
        raise Unavailable("the ledger does not answer", code="LEDGER_UNAVAILABLE", detail=repr(e)) from e
