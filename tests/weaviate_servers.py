"""Weaviate for tests: the double in a process of its own, or the real server of TICKGATE_TEST_WEAVIATE_URL."""

import asyncio
import atexit
import contextlib
import functools
import os
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec

from core.adapters.weaviate.schema import open_schema
from core.infrastructure.schemas import pending
from core.settings import Secret, Settings, WeaviateSettings
from tests.engines import free_port, listens, wait_for

REAL_URL = os.environ.get("TICKGATE_TEST_WEAVIATE_URL", "")
"""host, host:port or host:port:grpc-port; TICKGATE_TEST_WEAVIATE_KEY is its key."""


@contextlib.contextmanager
def running_double(*arguments: str, api_key: str = "") -> Iterator[WeaviateSettings]:
    """Start the double and yield what reaches it."""
    with double_process(*arguments, api_key=api_key) as (settings, _):
        yield settings


@contextlib.contextmanager
def double_process(
    *arguments: str, api_key: str = ""
) -> Iterator[tuple[WeaviateSettings, subprocess.Popen[bytes]]]:
    """Start the double; yield what reaches it, and its process."""
    http_port, grpc_port = free_port(), free_port()
    command = [sys.executable, "-m", "tests.weaviate_double", str(http_port), str(grpc_port), *arguments]
    if api_key:
        command += ["--api-key", api_key]
    with subprocess.Popen(command, cwd=Path(__file__).parents[1], stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: process.poll() is not None or listens(http_port), "the double listening")
            assert process.poll() is None, "the double ended"
            settings = WeaviateSettings(
                host="127.0.0.1",
                port=http_port,
                grpc_port=grpc_port,
                api_key=Secret(api_key),
                connect_timeout_s=10,
            )
            yield settings, process
        finally:
            process.kill()


@contextlib.asynccontextmanager
async def with_double(settings: Settings) -> AsyncIterator[Settings]:
    """Yield `settings` with the one double of this process, which lives until the process ends."""
    chosen = msgspec.structs.replace(settings, weaviate=_double_of_this_process())
    await bring_forward(chosen)
    yield chosen


@functools.cache
def _double_of_this_process() -> WeaviateSettings:
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(running_double())


def real_server() -> WeaviateSettings:
    """Return what reaches the real server."""
    host, *ports = REAL_URL.removeprefix("http://").split(":")
    port, grpc_port = [int(port) for port in ports] + [8080, 50051][len(ports) :]
    key = Secret(os.environ.get("TICKGATE_TEST_WEAVIATE_KEY", ""))
    return WeaviateSettings(host=host, port=port, grpc_port=grpc_port, api_key=key)


def migrated(settings: Settings, weaviate: WeaviateSettings) -> Settings:
    """Return `settings` with a Weaviate whose schema has been brought forward."""
    chosen = msgspec.structs.replace(settings, weaviate=weaviate)
    asyncio.run(bring_forward(chosen))
    return chosen


async def bring_forward(settings: Settings) -> None:
    async with open_schema(settings) as schema:
        for step in pending("weaviate", await schema.applied()):
            await schema.apply(step)


def refuse(weaviate: WeaviateSettings, word: str) -> None:
    """Have the double refuse every object with this word, none with an empty one."""
    url = f"http://{weaviate.host}:{weaviate.port}/_double/unkeepable"
    body = msgspec.json.encode({"word": word})
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10):
        pass
