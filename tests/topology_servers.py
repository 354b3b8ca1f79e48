"""Where the topology can be kept: in PostgreSQL, in ArangoDB's double, and in the real ArangoDB."""

import atexit
import contextlib
import functools
import os
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from core.adapters.arango.schema import open_schema
from core.infrastructure.schemas import pending
from core.settings import ArangoSettings, Secret, Settings
from tests.engines import free_port, listens, wait_for

REAL_URL = os.environ.get("TICKGATE_TEST_ARANGO_URL", "")
"""http://user:password@host:port/database"""
PASSWORD = "a double's password"


@dataclass(frozen=True)
class Place:
    """at: changes settings so that the hub opens the keeper of this place, with its schema brought forward."""

    name: str
    at: Callable[[Settings], AbstractAsyncContextManager[Settings]]


@contextlib.asynccontextmanager
async def in_postgres(settings: Settings) -> AsyncIterator[Settings]:
    yield settings


@contextlib.asynccontextmanager
async def with_double(settings: Settings) -> AsyncIterator[Settings]:
    """Yield `settings` with the one double of this process, which lives until the process ends."""
    chosen = msgspec.structs.replace(settings, arango=_double_of_this_process())
    await bring_forward(chosen)
    yield chosen


@contextlib.asynccontextmanager
async def with_real_server(settings: Settings) -> AsyncIterator[Settings]:
    url = urlsplit(REAL_URL)
    arango = ArangoSettings(
        host=url.hostname or "",
        port=url.port or 8529,
        database=url.path.strip("/") or "_system",
        user=url.username or "root",
        password=Secret(url.password or ""),
        secure=url.scheme == "https",
    )
    chosen = msgspec.structs.replace(settings, arango=arango)
    await bring_forward(chosen)
    yield chosen


PLACES: list[Place] = [
    Place(name="postgres", at=in_postgres),
    Place(name="arango-double", at=with_double),
    *([Place(name="arango", at=with_real_server)] if REAL_URL else []),
]


@contextlib.contextmanager
def running_double(*arguments: str) -> Iterator[ArangoSettings]:
    """Start the double and yield what reaches it."""
    with double_process(*arguments) as (settings, _):
        yield settings


@contextlib.contextmanager
def double_process(*arguments: str) -> Iterator[tuple[ArangoSettings, subprocess.Popen[bytes]]]:
    """Start the double; yield what reaches it, and its process."""
    port = free_port()
    command = [sys.executable, "-m", "tests.arango_double", str(port), "--password", PASSWORD, *arguments]
    with subprocess.Popen(command, cwd=Path(__file__).parents[1], stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: process.poll() is not None or listens(port), "the double listening")
            assert process.poll() is None, "the double ended"
            yield ArangoSettings(host="127.0.0.1", port=port, password=Secret(PASSWORD)), process
        finally:
            process.kill()


@functools.cache
def _double_of_this_process() -> ArangoSettings:
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(running_double())


async def bring_forward(settings: Settings) -> None:
    async with open_schema(settings) as schema:
        for step in pending("arango", await schema.applied()):
            await schema.apply(step)


def conflict(arango: ArangoSettings, times: int, number: int = 1200) -> None:
    """Have the double refuse the next statements of transactions, with write-write conflicts or another number."""
    url = f"http://{arango.host}:{arango.port}/_double/conflicts"
    body = msgspec.json.encode({"times": times, "number": number})
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10):
        pass
