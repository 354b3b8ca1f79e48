"""Revocations in the ledger, known by heart in every process.

A dedicated connection LISTENs: a revocation is known everywhere within milliseconds of its commit. Every few seconds
the same connection is asked for what is new, so that neither a lost notification nor a frozen server goes unnoticed.
Whoever has not been told for KNOWLEDGE_S_MAX fails closed: it raises instead of letting anybody in.

When a credential was issued is compared with when it was revoked, on two clocks that may differ, and a token's `iat`
has its fraction of a second cut off. So whatever was issued up to CLOCK_SKEW_S_MAX after a revocation is refused as
well: a new token of a client whose tokens were just revoked may have to be asked for again, an old one never passes.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
import msgspec
import structlog

from core.adapters.postgres.pool import CONNECTION_ERRORS, Postgres, connect
from core.errors.exceptions import Unavailable
from core.settings import PostgresSettings, Settings
from core.telemetry import metrics

log = structlog.get_logger(__name__)

CHANNEL: Final = "tickgate_revocations"
KNOWLEDGE_S_MAX: Final = 60.0
CLOCK_SKEW_S_MAX: Final = 2.0
PROBE_INTERVAL_S: Final = 5.0
PROBE_TIMEOUT_S: Final = 5.0
RECONNECT_S_MIN: Final = 0.1
RECONNECT_S_MAX: Final = 5.0
OVERLAP_S: Final = 60
"""A probe looks back this far behind the last one: at rows whose transaction took that long to commit."""
PRUNE_INTERVAL_S: Final = 600.0
PRUNED_MAX: Final = 10_000

_COLUMNS: Final = (
    "credential, extract(epoch from revoked_at)::float8 as revoked_at_s,"
    " extract(epoch from expires_at)::float8 as expires_at_s"
)
_NEWS: Final = msgspec.json.Decoder(tuple[str, float, float])
_NEVER: Final = (float("-inf"), float("-inf"))
_ERRORS: Final = (*CONNECTION_ERRORS, asyncpg.PostgresError, Unavailable)


class PostgresRevocations:
    """The `Revocations` port on PostgreSQL. Follows the table from `follow` being entered until it is left."""

    def __init__(
        self,
        postgres: Postgres,
        settings: PostgresSettings,
        *,
        knowledge_s_max: float = KNOWLEDGE_S_MAX,
        probe_interval_s: float = PROBE_INTERVAL_S,
        probe_timeout_s: float = PROBE_TIMEOUT_S,
    ) -> None:
        self._postgres = postgres
        self._settings = settings
        self._knowledge_s_max = knowledge_s_max
        self._probe_interval_s = probe_interval_s
        self._probe_timeout_s = probe_timeout_s
        self._known: dict[str, tuple[float, float]] = {}
        self._known_at_s = float("-inf")
        self._pruned_at_s = time.monotonic()

    def is_revoked(self, *credentials: str, issued_at_s: float) -> bool:
        if time.monotonic() - self._known_at_s > self._knowledge_s_max:
            raise Unavailable("we cannot tell whether this credential was revoked", code="REVOCATIONS_STALE")
        known = self._known
        for credential in credentials:
            found = known.get(credential)
            if found is not None and issued_at_s <= found[0] + CLOCK_SKEW_S_MAX:
                return True
        return False

    async def revoke(self, credential: str, expires_at_s: float) -> None:
        async with self._postgres.acquire() as connection:
            row = await connection.fetchrow(
                "insert into revocations as known (credential, expires_at) values ($1, to_timestamp($2))"
                " on conflict (credential) do update set revoked_at = excluded.revoked_at,"
                f" expires_at = greatest(known.expires_at, excluded.expires_at) returning {_COLUMNS}",
                credential,
                expires_at_s,
            )
        self._learn((row,))
        log.info("access.revoked", what=credential)

    async def ping(self) -> None:
        """Raises: Unavailable: what we know is too old."""
        self.is_revoked(issued_at_s=0)

    @asynccontextmanager
    async def follow(self) -> AsyncIterator[None]:
        """Know everything, and learn what is new until left. Raises: Unavailable, Misconfigured."""
        lost = asyncio.Event()
        connection = await self._listen(lost)
        following = asyncio.create_task(self._follow(connection, lost), name="revocations")
        following.add_done_callback(_stopped)
        try:
            yield
        finally:
            following.cancel()
            await asyncio.wait((following,))

    async def _follow(self, connection: asyncpg.Connection, lost: asyncio.Event) -> None:
        while True:
            try:
                await self._keep_up(connection, lost)
            except _ERRORS as e:
                log.warning("revocations.lost", error=repr(e))
            finally:
                connection.terminate()
            connection = await self._listen_again(lost)
            log.info("revocations.following", known=len(self._known))

    async def _keep_up(self, connection: asyncpg.Connection, lost: asyncio.Event) -> None:
        """Probe until the connection is lost."""
        while not lost.is_set():
            await self._probe(connection, OVERLAP_S)
            await self._prune(connection)
            try:
                async with asyncio.timeout(self._probe_interval_s):
                    await lost.wait()
            except TimeoutError:
                pass

    async def _listen_again(self, lost: asyncio.Event) -> asyncpg.Connection:
        pause_s = RECONNECT_S_MIN
        while True:
            try:
                return await self._listen(lost)
            except _ERRORS:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, RECONNECT_S_MAX)

    async def _listen(self, lost: asyncio.Event) -> asyncpg.Connection:
        """Listen first and read everything then, so that nothing falls between."""
        connection = await connect(self._settings, "tickgate revocations")
        try:
            async with asyncio.timeout(self._probe_timeout_s):
                await connection.add_listener(CHANNEL, self._told)
            await self._probe(connection, None)
        except BaseException as e:
            connection.terminate()
            if isinstance(e, asyncpg.UndefinedTableError):
                raise Unavailable("the ledger is still to be migrated", code="SCHEMA_OLDER") from e
            if isinstance(e, CONNECTION_ERRORS):
                raise Unavailable(
                    "the ledger does not answer", code="LEDGER_UNAVAILABLE", detail=repr(e)
                ) from e
            raise
        lost.clear()
        connection.add_termination_listener(lambda _connection: lost.set())
        return connection

    async def _probe(self, connection: asyncpg.Connection, back_s: int | None) -> None:
        """Read what was revoked since `back_s` before the last probe; all of it with None."""
        asked_at_s = time.monotonic()
        since_s = None if back_s is None else asked_at_s - self._known_at_s + back_s
        rows = await connection.fetch(
            f"select {_COLUMNS} from revocations where expires_at > now()"
            " and ($1::float8 is null or revoked_at > now() - make_interval(secs => $1))",
            since_s,
            timeout=self._probe_timeout_s,
        )
        self._learn(rows)
        self._known_at_s = asked_at_s
        metrics.REVOCATIONS_CONFIRMED.set_to_current_time()
        metrics.REVOCATIONS_KNOWN.set(len(self._known))

    async def _prune(self, connection: asyncpg.Connection) -> None:
        """Forget what has expired, here and, now and then, in the ledger."""
        now_s = time.time()
        for credential in [name for name, (_, ends_s) in self._known.items() if ends_s < now_s]:
            del self._known[credential]
        if time.monotonic() - self._pruned_at_s < PRUNE_INTERVAL_S:
            return
        self._pruned_at_s = time.monotonic()
        await connection.execute(
            "delete from revocations where credential in (select credential from revocations"
            " where expires_at < now() limit $1 for update skip locked)",
            PRUNED_MAX,
            timeout=self._probe_timeout_s,
        )

    def _told(self, _connection: Any, _pid: int, _channel: str, payload: str) -> None:
        credential, revoked_at_s, expires_at_s = _NEWS.decode(payload)
        self._learn(({"credential": credential, "revoked_at_s": revoked_at_s, "expires_at_s": expires_at_s},))

    def _learn(self, rows: Iterable[Mapping[str, Any]]) -> None:
        for row in rows:
            credential, revoked_at_s = row["credential"], row["revoked_at_s"]
            before_s = self._known.get(credential, _NEVER)[0]
            self._known[credential] = (max(before_s, revoked_at_s), row["expires_at_s"])


def _stopped(following: asyncio.Task[None]) -> None:
    if not following.cancelled():
        # A defect: from KNOWLEDGE_S_MAX on nobody is let in, which is what its reader must be told.
        log.error("revocations.stopped", exc_info=following.exception())


@asynccontextmanager
async def open_revocations(
    settings: Settings, services: Mapping[str, Any]
) -> AsyncIterator[PostgresRevocations]:
    """Open once everything revoked is known. Raises: Unavailable, Misconfigured."""
    revocations = PostgresRevocations(services["postgres"], settings.postgres)
    async with revocations.follow():
        yield revocations
