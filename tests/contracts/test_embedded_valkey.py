"""What the embedded Valkey promises: a password, loopback, and writes that outlive kill -9 after a second."""

import signal
from collections.abc import Iterator

import psutil
import pytest
import redis
from redis.asyncio import Redis

from tests.contracts.embedded_fixtures import PASSWORD, EngineProcess, open_directory, running


@pytest.fixture
def server() -> Iterator[EngineProcess]:
    with open_directory() as directory, running("valkey", directory / "valkey") as engine:
        yield engine


def client(server: EngineProcess, password: str | None = PASSWORD) -> Redis:
    return Redis(port=server.port, password=password, socket_timeout=5)


async def test_what_was_written_outlives_a_stop_and_a_kill(server: EngineProcess) -> None:
    async with client(server) as connection:
        await connection.set("kept", "1")
    assert server.end(signal.SIGTERM) == 0
    server.start()
    async with client(server) as connection:
        assert await connection.get("kept") == b"1"
        await connection.set("kept", "2")
        # The answer to WAITAOF is the proof that the write is on disk, whatever everysec would allow.
        assert (await connection.execute_command("WAITAOF", 1, 0, 5_000))[0] == 1
    server.end(signal.SIGKILL)
    server.start()
    async with client(server) as connection:
        assert await connection.get("kept") == b"2"


async def test_it_keeps_everything_or_refuses(server: EngineProcess) -> None:
    async with client(server) as connection:
        settings = await connection.config_get("*")
    expected = {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "bind": "127.0.0.1",
    }
    assert {name: settings[name] for name in expected} == expected


@pytest.mark.parametrize("password", [None, "wrong"])
async def test_without_the_password_nothing_is_answered(server: EngineProcess, password: str | None) -> None:
    connection = client(server, password)
    with pytest.raises(redis.AuthenticationError):
        await connection.get("kept")
    await connection.aclose()


def test_the_password_is_private(server: EngineProcess) -> None:
    assert PASSWORD not in " ".join(psutil.Process(server.pid).cmdline())
    assert (server.directory / "valkey.conf").stat().st_mode & 0o077 == 0
