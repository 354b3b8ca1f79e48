"""Locks: one holder of a name at a time, bounded waits, and a dead holder lets go."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from core.adapters.postgres.locks import PostgresLocks
from core.adapters.postgres.pool import Postgres, open_pool
from core.errors.exceptions import Conflict, Unavailable
from core.settings import Settings
from tests.engines import House, new_databases

WAIT_S = 0.3


@pytest.fixture(scope="module")
def settings(house: House) -> Settings:
    return new_databases(house)


@contextlib.asynccontextmanager
async def process(
    settings: Settings, *, connections_max: int = 4, holders_max: int = 2, **limits: Any
) -> AsyncIterator[tuple[PostgresLocks, Postgres]]:
    """Open locks as one process of several does."""
    own = msgspec.structs.replace(settings.postgres, connections_max=connections_max)
    async with open_pool(msgspec.structs.replace(settings, postgres=own), {}) as postgres:
        yield PostgresLocks(postgres, holders_max, **{"wait_s": WAIT_S, **limits}), postgres


async def test_two_processes_hold_a_name_one_after_the_other(settings: Settings) -> None:
    order: list[str] = []
    async with process(settings, wait_s=5) as (here, _), process(settings, wait_s=5) as (there, _):

        async def write(locks: PostgresLocks, who: str) -> None:
            async with locks.held("demo", "annotations", "a"):
                order.append(f"{who} in")
                await asyncio.sleep(0)
                order.append(f"{who} out")

        await asyncio.gather(*(write(locks, f"{n}") for n in range(5) for locks in (here, there)))
    assert len(order) == 20
    assert all(order[i].split()[0] == order[i + 1].split()[0] for i in range(0, 20, 2))


@pytest.mark.parametrize("same_process", [True, False])
async def test_a_name_that_others_keep_is_busy(settings: Settings, same_process: bool) -> None:
    async with process(settings) as (here, _), process(settings) as (there, _):
        async with here.held("demo", "annotations", "b"):
            with pytest.raises(Conflict, match="RECORD_BUSY"):
                async with (here if same_process else there).held("demo", "annotations", "b"):
                    pass
        async with there.held("demo", "annotations", "b"):
            pass


@pytest.mark.parametrize(
    "other", [("rival", "annotations", "c"), ("demo", "incidents", "c"), ("demo", "annotations", "d")]
)
async def test_another_name_is_free(settings: Settings, other: tuple[str, str, str]) -> None:
    async with process(settings) as (locks, _), locks.held("demo", "annotations", "c"), locks.held(*other):
        pass


async def test_a_failed_block_lets_go_and_its_error_passes(settings: Settings) -> None:
    async with process(settings) as (locks, _):
        with pytest.raises(KeyError):
            async with locks.held("demo", "annotations", "e"):
                raise KeyError
        async with locks.held("demo", "annotations", "e"):
            pass


async def test_holders_leave_connections_for_everybody_else(settings: Settings) -> None:
    async with (
        process(settings, connections_max=2, holders_max=1) as (locks, postgres),
        locks.held("demo", "annotations", "f"),
        postgres.acquire() as connection,
    ):
        assert await connection.fetchval("select 1") == 1
        with pytest.raises(Unavailable, match="too many write at once"):
            async with locks.held("demo", "annotations", "g"):
                pass


async def test_a_block_that_takes_too_long_is_cancelled(settings: Settings) -> None:
    async with process(settings, held_s_max=0.05) as (locks, _):
        with pytest.raises(Unavailable, match="LOCK_EXPIRED"):
            async with locks.held("demo", "annotations", "h"):
                await asyncio.Event().wait()


async def test_a_holder_whose_connection_ends_is_told_and_the_lock_is_free(settings: Settings) -> None:
    async with process(settings) as (here, _), process(settings) as (there, postgres):

        async def hold_until_others_can() -> None:
            async with here.held("demo", "annotations", "i"):
                await cut_holders(postgres)
                async with there.held("demo", "annotations", "i"):
                    pass

        with pytest.raises(Unavailable, match="LEDGER_UNAVAILABLE"):
            await hold_until_others_can()


async def cut_holders(postgres: Postgres) -> None:
    async with postgres.acquire() as connection:
        await connection.execute(
            "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory'"
            " and database = (select oid from pg_database where datname = current_database())"
        )


HOLD = """
import asyncio
from core.infrastructure.central_hub import open_hub
from core.infrastructure.config_manager import load_settings

async def main():
    async with open_hub(load_settings(), {"locks"}) as hub, hub["locks"].held("demo", "annotations", "j"):
        print("held", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_holder_that_is_killed_lets_go(settings: Settings) -> None:
    postgres = settings.postgres
    environment = {
        **os.environ,
        "TICKGATE_POSTGRES_PORT": str(postgres.port),
        "TICKGATE_POSTGRES_DATABASE": postgres.database,
        "TICKGATE_POSTGRES_PASSWORD": postgres.password.reveal(),
    }
    with subprocess.Popen([sys.executable, "-c", HOLD], env=environment, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert await asyncio.to_thread(holder.stdout.readline) == b"held\n"
        async with process(settings) as (locks, _):
            with pytest.raises(Conflict, match="RECORD_BUSY"):
                async with locks.held("demo", "annotations", "j"):
                    pass
        holder.kill()
    async with process(settings, wait_s=10) as (locks, _), locks.held("demo", "annotations", "j"):
        pass
