"""Carries a request from its first byte to its answer, so that it can be listed, stopped and awaited."""

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from aiohttp import ClientError, web

from core.adapters.embedded.clickhouse_answer import Responder
from core.adapters.embedded.clickhouse_engine import Engine
from core.adapters.embedded.clickhouse_errors import EngineError, cancelled
from core.adapters.embedded.clickhouse_execution import Execution, House
from core.adapters.embedded.clickhouse_registry import Registry, Running
from core.adapters.embedded.clickhouse_request import authenticate, query_id, read
from core.adapters.embedded.clickhouse_sessions import Sessions

READ_THREADS: Final = 16
WRITE_THREADS: Final = 8
STOP_THREADS: Final = 4


class Service:
    """The one application of the process."""

    def __init__(self, engine: Engine, user: str, password: str) -> None:
        self._user = user
        self._password = password
        self._house = House(
            engine=engine,
            registry=Registry(),
            sessions=Sessions(engine),
            readers=ThreadPoolExecutor(READ_THREADS, thread_name_prefix="read"),
            writers=ThreadPoolExecutor(WRITE_THREADS, thread_name_prefix="write"),
            # Stopping a query must not wait behind the queries.
            stoppers=ThreadPoolExecutor(STOP_THREADS, thread_name_prefix="stop"),
        )

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request. When its client goes, a read is stopped and a change is carried through."""
        name = query_id(request)
        responder = Responder(request, name, self._house.engine.timezone)
        try:
            authenticate(request, self._user, self._password)
            if request.method in {"GET", "HEAD"} and not request.query.get("query"):
                return web.Response(text="Ok.\n")
            running = self._house.registry.admit(name, self._user)
        except EngineError as error:
            return responder.failure(error)
        # A task of its own: the handler is cancelled when the client goes, an insert must not be.
        work = asyncio.create_task(self._carry(request, responder, running))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            running.client_left()
            raise

    async def drain(self, seconds: float) -> None:
        """Wait for what runs, then stop it."""
        registry = self._house.registry
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(running.finished.wait() for running in registry.all()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await registry.stop(registry.all(), wait=True)

    def close(self) -> None:
        self._house.close()

    async def _carry(
        self, request: web.Request, responder: Responder, running: Running
    ) -> web.StreamResponse:
        try:
            # A stop wakes whoever waits for the rest of the body.
            running.on_stop(partial(request.content.set_exception, cancelled()))
            asked = await read(request)
            return await Execution(self._house, request, responder, running, asked).answer()
        except EngineError as error:
            return responder.failure(running.stopped or error)
        except (OSError, ClientError) as error:
            # The client went; nobody reads this, and nothing of a body in part is ever stored.
            return web.Response(status=400, text=f"{error}\n")
        finally:
            self._house.registry.leave(running)
