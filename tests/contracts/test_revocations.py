"""Revocations: known everywhere at once, never forgotten by a restart, and nobody let in on stale knowledge."""

import asyncio
import contextlib
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.adapters.postgres.pool import Postgres, open_pool
from core.adapters.postgres.revocations import CLOCK_SKEW_S_MAX, PostgresRevocations
from core.adapters.postgres.schema import open_schema
from core.errors.exceptions import Unavailable
from core.infrastructure.central_hub import open_hub
from core.infrastructure.schemas import steps
from core.settings import Settings
from tests.engines import Engine, House, build_house, new_databases

OLD_S = 1_000_000.0
"""Issued long ago."""


@pytest.fixture(scope="module")
def shared(house: House) -> Settings:
    return new_databases(house)


@pytest.fixture
async def settings(shared: Settings) -> Settings:
    """The module's databases, emptied: making new ones for every test takes longer than the tests."""
    async with open_pool(shared, {}) as postgres, postgres.acquire() as connection:
        await connection.execute("truncate revocations")
    return shared


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, Settings]]:
    """A PostgreSQL of this module's own, to be stopped and killed at will."""
    root = Path(tempfile.mkdtemp(prefix="tickgate-test-"))
    root.chmod(0o711)
    house = build_house(root)
    engine = house.engines["postgres"]
    try:
        engine.start()
        engine.wait()
        asyncio.run(_migrate(house.settings))
        yield engine, house.settings
    finally:
        engine.stop()
        shutil.rmtree(root, ignore_errors=True)


async def _migrate(settings: Settings) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                async with open_schema(settings) as schema:
                    await schema.applied()
                    for step in steps("postgres"):
                        await schema.apply(step)
                return
            except Unavailable:
                await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def followers(settings: Settings, count: int = 1, **limits: float) -> AsyncIterator[Any]:
    """Yield that many instances, each on a pool and a connection of its own, as processes have them."""
    async with contextlib.AsyncExitStack() as stack:
        found = []
        for _ in range(count):
            postgres = await stack.enter_async_context(open_pool(settings, {}))
            revocations = PostgresRevocations(postgres, settings.postgres, **limits)
            await stack.enter_async_context(revocations.follow())
            found.append(revocations)
        yield found


class Relay:
    """A way to PostgreSQL on which the server's last words can be heard while the line is still open."""

    LAST_WORDS = b"SFATAL\0VFATAL\0C57P02\0Mterminating connection because of crash\0\0"

    def __init__(self, settings: Settings) -> None:
        self._port = settings.postgres.port
        self.lines: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._port)
        self.lines.append(writer)
        with contextlib.suppress(OSError):
            await asyncio.gather(self._pumped(reader, to_server), self._pumped(from_server, writer))

    async def _pumped(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while some := await source.read(65_536):
                target.write(some)
        finally:
            target.close()

    def say_last_words(self) -> int:
        """Say them on every line; return how many there are."""
        for line in self.lines:
            line.write(b"E" + (len(self.LAST_WORDS) + 4).to_bytes(4, "big") + self.LAST_WORDS)
        return len(self.lines)


async def until(fact: Callable[[], Any], timeout_s: float = 20.0) -> float:
    """Wait for `fact()` and return how long it took."""
    started = time.monotonic()
    async with asyncio.timeout(timeout_s):
        while not fact():
            await asyncio.sleep(0.005)
    return time.monotonic() - started


def is_stale(revocations: PostgresRevocations) -> bool:
    try:
        revocations.is_revoked("token:x", issued_at_s=OLD_S)
    except Unavailable as e:
        return e.code == "REVOCATIONS_STALE"
    return False


async def test_what_was_revoked_is_refused_at_once_by_who_revoked_it(settings: Settings) -> None:
    async with followers(settings) as [ours]:
        assert not ours.is_revoked("token:a", issued_at_s=OLD_S)
        await ours.revoke("token:a", time.time() + 60)
        assert ours.is_revoked("token:a", issued_at_s=OLD_S)
        assert ours.is_revoked("client:b", "token:a", issued_at_s=OLD_S)
        assert not ours.is_revoked("token:b", "client:b", issued_at_s=OLD_S)


async def test_who_is_told_that_the_server_dies_and_is_left_on_the_line_goes_on(settings: Settings) -> None:
    relay = Relay(settings)
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    replace = msgspec.structs.replace
    relayed = replace(settings, postgres=replace(settings.postgres, port=port))
    async with server, followers(settings) as [ours], followers(relayed, probe_interval_s=0.5) as [theirs]:
        # It has probed once, and will not soon again: the words come while nothing is asked.
        await ours.revoke("token:b", time.time() + 60)
        await until(lambda: theirs.is_revoked("token:b", issued_at_s=OLD_S))
        before = relay.say_last_words()
        await until(lambda: len(relay.lines) > before)
        await ours.revoke("token:a", time.time() + 60)
        await until(lambda: theirs.is_revoked("token:a", issued_at_s=OLD_S))


async def test_every_other_process_knows_within_a_second(settings: Settings) -> None:
    async with followers(settings, 3) as [ours, *others]:
        await ours.revoke("client:a", time.time() + 60)
        for other in others:
            known = lambda other=other: other.is_revoked("client:a", issued_at_s=OLD_S)  # noqa: E731
            assert await until(known) < 1.0


async def test_the_hub_opens_it_knowing_what_was_revoked_before(settings: Settings) -> None:
    async with followers(settings) as [ours]:
        await ours.revoke("key:1", time.time() + 60)
    async with open_hub(settings, {"revocations"}) as hub:
        assert hub["revocations"].is_revoked("key:1", issued_at_s=OLD_S)
        assert all(health.healthy for health in await hub.health())


async def test_a_token_of_the_same_second_as_the_revocation_is_refused(settings: Settings) -> None:
    async with followers(settings) as [ours]:
        await ours.revoke("client:a", time.time() + 60)
        assert ours.is_revoked("client:a", issued_at_s=int(time.time()))
        assert ours.is_revoked("client:a", issued_at_s=time.time() + CLOCK_SKEW_S_MAX / 2)


async def test_what_is_issued_well_after_a_revocation_is_good(settings: Settings) -> None:
    async with followers(settings) as [ours]:
        await ours.revoke("client:a", time.time() + 60)
        assert not ours.is_revoked("client:a", issued_at_s=time.time() + CLOCK_SKEW_S_MAX + 1)


async def test_revoking_again_moves_the_moment_and_never_shortens_the_life(settings: Settings) -> None:
    async with followers(settings, 2) as [ours, other]:
        await ours.revoke("client:a", time.time() + 600)
        first_s = time.time()
        await ours.revoke("client:a", time.time() + 1)
        async with ours._postgres.acquire() as connection:
            row = await connection.fetchrow("select * from revocations")
        assert row["expires_at"].timestamp() > time.time() + 500
        assert row["revoked_at"].timestamp() >= first_s
        await until(lambda: other._known["client:a"] == ours._known["client:a"])


async def test_a_lost_notification_is_made_good_by_the_next_probe(settings: Settings) -> None:
    async with followers(settings, 1, probe_interval_s=0.2) as [ours]:
        async with ours._postgres.acquire() as connection, connection.transaction():
            await connection.execute("alter table revocations disable trigger announced")
            await connection.execute(
                "insert into revocations (credential, expires_at) values ('token:q', now() + interval '1 hour')"
            )
            await connection.execute("alter table revocations enable trigger announced")
        await until(lambda: ours.is_revoked("token:q", issued_at_s=OLD_S))


async def test_what_has_expired_is_forgotten(settings: Settings) -> None:
    async with followers(settings, 1, probe_interval_s=0.1) as [ours]:
        await ours.revoke("token:a", time.time() + 0.3)
        assert "token:a" in ours._known
        await until(lambda: "token:a" not in ours._known)


async def test_expired_rows_leave_the_ledger(settings: Settings) -> None:
    async with followers(settings, 1, probe_interval_s=0.1) as [ours]:
        await ours.revoke("token:a", time.time() - 1)
        await ours.revoke("token:b", time.time() + 60)
        ours._pruned_at_s = float("-inf")
        async with asyncio.timeout(10), ours._postgres.acquire() as connection:
            while await connection.fetchval("select count(*) from revocations") != 1:
                await asyncio.sleep(0.02)


async def test_a_connection_that_is_cut_is_made_again_at_once(settings: Settings) -> None:
    async with followers(settings, 2) as [ours, other]:
        async with ours._postgres.acquire() as connection:
            await connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name = 'tickgate revocations' and datname = current_database()"
            )
        await ours.revoke("token:a", time.time() + 60)
        assert await until(lambda: other.is_revoked("token:a", issued_at_s=OLD_S)) < 2.0


async def test_a_killed_postgres_forgets_nothing_and_is_followed_again(own: tuple[Engine, Settings]) -> None:
    engine, settings = own
    async with followers(settings, 2, knowledge_s_max=2.0, probe_interval_s=0.2) as [ours, other]:
        await ours.revoke("token:before", time.time() + 600)
        engine.stop(signal.SIGKILL)
        await until(lambda: is_stale(other))
        engine.start()
        await asyncio.to_thread(engine.wait)
        await until(lambda: not is_stale(ours) and not is_stale(other))
        assert other.is_revoked("token:before", issued_at_s=OLD_S)
        await _revoke_patiently(ours, "token:after")
        assert await until(lambda: other.is_revoked("token:after", issued_at_s=OLD_S)) < 1.0


async def test_a_frozen_postgres_makes_us_fail_closed_until_it_thaws(own: tuple[Engine, Settings]) -> None:
    engine, settings = own
    limits = {"knowledge_s_max": 1.0, "probe_interval_s": 0.2, "probe_timeout_s": 0.5}
    async with followers(settings, 1, **limits) as [ours]:
        frozen = _processes(engine)
        _signal(frozen, signal.SIGSTOP)
        try:
            await until(lambda: is_stale(ours))
            with pytest.raises(Unavailable):
                await ours.ping()
        finally:
            _signal(frozen, signal.SIGCONT)
        await until(lambda: not is_stale(ours))


async def test_an_unmigrated_ledger_is_waited_for(settings: Settings) -> None:
    async with open_pool(settings, {}) as postgres:
        await _rename(postgres, "revocations", "unmade")
        try:
            with pytest.raises(Unavailable, match="SCHEMA_OLDER"):
                async with PostgresRevocations(postgres, settings.postgres).follow():
                    pass
        finally:
            await _rename(postgres, "unmade", "revocations")


async def _rename(postgres: Postgres, before: str, after: str) -> None:
    async with postgres.acquire() as connection:
        await connection.execute(f"alter table {before} rename to {after}")


async def _revoke_patiently(revocations: PostgresRevocations, credential: str) -> None:
    """The pool's old connections end one by one."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await revocations.revoke(credential, time.time() + 600)
            except Unavailable:
                await asyncio.sleep(0.1)


def _processes(engine: Engine) -> list[Any]:
    import psutil

    assert engine.process is not None
    parent = psutil.Process(engine.process.pid)
    return [parent, *parent.children(recursive=True)]


def _signal(processes: list[Any], number: signal.Signals) -> None:
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
