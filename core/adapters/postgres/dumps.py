"""Write the ledger down as one consistent snapshot, table by table, and fill an empty one in one transaction.

Tables come from the catalogue, so that none is forgotten. A part begins with the names of its columns; what follows is
COPY's text, which any later PostgreSQL reads.
"""

from collections.abc import AsyncIterable, AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from graphlib import TopologicalSorter
from typing import Any, Final

import asyncpg
import msgspec

from core.adapters.postgres.pool import CONNECTION_ERRORS, connect
from core.adapters.postgres.schema import LOCK_KEY
from core.errors.exceptions import Conflict, Corrupt, TickgateError, Unavailable
from core.ports.backups import Epochs, Sink
from core.settings import PostgresSettings, Settings

COPY_TIMEOUT_S: Final = 4 * 3_600
"""Of one table."""
LOCK_WAIT_S: Final = 30
APPLICATION: Final = "tickgate backup"
NOT_DUMPED: Final = frozenset({"schema_steps"})
"""The manifest says which steps there were."""

_TABLES: Final = """
    select relation.relname as name, array_agg(a.attname::text order by a.attnum) as columns
    from pg_class relation join pg_attribute a on a.attrelid = relation.oid
    where relation.relnamespace = current_schema()::regnamespace and relation.relkind = 'r'
      and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
    group by relation.relname order by relation.relname
"""
_REFERENCES: Final = """
    select c.conrelid::regclass::text as child, c.confrelid::regclass::text as parent
    from pg_constraint c where c.contype = 'f' and c.connamespace = current_schema()::regnamespace
"""
_COUNTERS: Final = """
    select relation.relname as name, a.attname as column,
        pg_get_serial_sequence(quote_ident(relation.relname), a.attname) as counter
    from pg_class relation join pg_attribute a on a.attrelid = relation.oid
    where relation.relnamespace = current_schema()::regnamespace and relation.relkind = 'r' and a.attnum > 0
      and pg_get_serial_sequence(quote_ident(relation.relname), a.attname) is not null
"""


class PostgresSnapshot:
    """The `LedgerSnapshot` port: a REPEATABLE READ transaction."""

    def __init__(
        self, connection: asyncpg.Connection, tables: Mapping[str, Sequence[str]], epochs: Epochs
    ) -> None:
        self._connection = connection
        self._tables = tables
        self.epochs = epochs

    @property
    def parts(self) -> Sequence[str]:
        return tuple(self._tables)

    async def write(self, part: str, sink: Sink) -> None:
        columns = self._tables[part]
        await sink(msgspec.json.encode(columns), 0)

        async def output(data: bytes) -> None:
            # A line break inside a value is written \n, so each real one ends a row.
            await sink(bytes(data), data.count(b"\n"))

        query = f"select {', '.join(map(_quoted, columns))} from {_quoted(part)}"
        with _translated():
            await self._connection.copy_from_query(
                query, output=output, format="text", timeout=COPY_TIMEOUT_S
            )


class PostgresLoading:
    """The `LedgerLoading` port: one transaction."""

    def __init__(
        self,
        connection: asyncpg.Connection,
        tables: Mapping[str, Sequence[str]],
        references: Mapping[str, set[str]],
    ) -> None:
        self._connection = connection
        self._tables = tables
        self._references = references

    async def occupied(self) -> str:
        with _translated():
            for table in self._tables:
                if await self._connection.fetchval(f"select exists (select from {_quoted(table)})"):
                    return f"table {table}"
        return ""

    async def clear(self) -> None:
        with _translated():
            await self._connection.execute(f"truncate {', '.join(map(_quoted, self._tables))}")

    def order(self, parts: Collection[str]) -> Sequence[str]:
        ordered = TopologicalSorter(self._references).static_order()
        return [table for table in ordered if table in parts]

    async def load(self, part: str, pieces: AsyncIterable[bytes]) -> int:
        iterator = aiter(pieces)
        columns = msgspec.json.decode(await anext(iterator), type=list[str])
        if part not in self._tables or not set(columns) <= set(self._tables[part]):
            raise Corrupt(f"the ledger has no table {part} with these columns", code="BACKUP_DAMAGED")
        with _translated():
            done = await self._connection.copy_to_table(
                part, source=iterator, columns=columns, format="text", timeout=COPY_TIMEOUT_S
            )
        return int(done.split()[-1])

    async def note_restore(self, backup: str) -> None:
        with _translated():
            if "restores" in self._tables:
                await self._connection.execute("insert into restores (backup) values ($1)", backup)

    async def count_on(self) -> None:
        """Let every counter go on behind the highest number that was loaded."""
        with _translated():
            for name, column, counter in await self._connection.fetch(_COUNTERS):
                await self._connection.execute(
                    f"select setval($1::text::regclass, coalesce(max({_quoted(column)}), 0) + 1, false)"
                    f" from {_quoted(name)}",
                    counter,
                )


class PostgresDumps:
    """The `LedgerDumps` port on PostgreSQL."""

    def __init__(self, settings: PostgresSettings) -> None:
        self._settings = settings

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[PostgresSnapshot]:
        async with self._connection() as guard, self._connection() as connection:
            with _translated():
                transaction = guard.transaction()
                await transaction.start()
                await _keep_still(guard)
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                with _translated():
                    await connection.execute("set local idle_in_transaction_session_timeout = 0")
                    tables = await _tables(connection)
                    rows = await connection.fetch("select source, epoch from source_epochs")
                epochs: dict[str, set[int]] = {}
                for source, epoch in rows:
                    epochs.setdefault(source, set()).add(epoch)
                yield PostgresSnapshot(connection, tables, epochs)
            with _translated():
                # Had the server cut it, retention could have gone on meanwhile.
                await transaction.rollback()

    @asynccontextmanager
    async def loading(self) -> AsyncIterator[PostgresLoading]:
        async with self._connection() as connection, connection.transaction():
            with _translated():
                await connection.execute("set local idle_in_transaction_session_timeout = 0")
                await _require_alone(connection)
                tables = await _tables(connection)
                references: dict[str, set[str]] = {table: set() for table in tables}
                for child, parent in await connection.fetch(_REFERENCES):
                    if child != parent:
                        references[child].add(parent)
            await _let_triggers_rest(connection, tables, rest=True)
            loading = PostgresLoading(connection, tables, references)
            yield loading
            await _let_triggers_rest(connection, tables, rest=False)
            await loading.count_on()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await connect(self._settings, APPLICATION)
        try:
            yield connection
        finally:
            await connection.close(timeout=LOCK_WAIT_S)


async def _keep_still(guard: asyncpg.Connection) -> None:
    """Let nobody migrate, and no retention note what it is about to drop, until the transaction ends."""
    await guard.execute(
        f"set local idle_in_transaction_session_timeout = 0; set local lock_timeout = '{LOCK_WAIT_S}s'",
        timeout=LOCK_WAIT_S,
    )
    try:
        await guard.execute(
            f"select pg_advisory_xact_lock_shared({LOCK_KEY}); lock table source_drops in share mode",
            timeout=2 * LOCK_WAIT_S,
        )
    except asyncpg.LockNotAvailableError as e:
        raise Conflict(
            "a migration or another restore is running; try again later", code="LEDGER_BUSY"
        ) from e


async def _require_alone(connection: asyncpg.Connection) -> None:
    """Raises: Conflict: processes of the house are connected, and would work on what is half restored."""
    others = await connection.fetchval(
        "select count(*) from pg_stat_activity where datname = current_database()"
        " and pid <> pg_backend_pid() and application_name like 'tickgate%' and application_name <> $1",
        APPLICATION,
    )
    if others:
        raise Conflict(
            f"{others} connections of running processes are open on the ledger; stop them first",
            code="RESTORE_WHILE_RUNNING",
        )


async def _let_triggers_rest(connection: asyncpg.Connection, tables: Iterable[str], *, rest: bool) -> None:
    """Put rows back as they were, not as new ones come in. Should we fail, the transaction wakes the triggers again."""
    with _translated():
        for table in tables:
            await connection.execute(
                f"alter table {_quoted(table)} {'disable' if rest else 'enable'} trigger user"
            )


async def _tables(connection: asyncpg.Connection) -> dict[str, Sequence[str]]:
    rows = await connection.fetch(_TABLES)
    return {row["name"]: row["columns"] for row in rows if row["name"] not in NOT_DUMPED}


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except TickgateError:
        raise
    except CONNECTION_ERRORS as e:
        raise Unavailable("the ledger does not answer", code="LEDGER_UNAVAILABLE", detail=repr(e)) from e
    except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as e:
        raise Corrupt(
            "the ledger refuses what the backup holds", code="BACKUP_DAMAGED", detail=repr(e)[:300]
        ) from e
    except asyncpg.PostgresError as e:
        raise Unavailable(
            "the ledger cannot do it now", code="LEDGER_UNAVAILABLE", detail=repr(e)[:300]
        ) from e


@asynccontextmanager
async def open_dumps(settings: Settings, _services: Mapping[str, Any]) -> AsyncIterator[PostgresDumps]:
    yield PostgresDumps(settings.postgres)
