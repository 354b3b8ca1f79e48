"""A standing connection to Redis: lost and found again, with back-off, for as long as the process lives."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import hiredis
import structlog

from core.adapters.redis.connection import Connection, OnMessage, connect
from core.errors.exceptions import Misconfigured, Unavailable
from core.settings import RedisSettings
from core.telemetry import metrics

log = structlog.get_logger(__name__)

PAUSE_S_MIN: Final = 0.05
PAUSE_S_MAX: Final = 2.0
KEEPALIVE_S: Final = 5.0

OnConnect = Callable[[Connection], Awaitable[None]]


class Link:
    """Holds at most one open connection and replaces it when it is lost.

    blocking_s: how long one command on it may block the server's answer; such a link is alone with that command.
    """

    def __init__(
        self,
        redis: RedisSettings,
        name: str,
        *,
        blocking_s: float = 0.0,
        on_message: OnMessage | None = None,
        on_connect: OnConnect | None = None,
    ) -> None:
        self._redis = redis
        self._name = name
        self._answer_timeout_s = redis.command_timeout_s + blocking_s
        self._keepalive_s = None if blocking_s else KEEPALIVE_S
        self._on_message = on_message
        self._on_connect = on_connect
        self._connection: Connection | None = None
        self._up = asyncio.Event()

    def get(self) -> Connection:
        """Return the open connection. Raises: Unavailable."""
        if self._connection is None:
            raise Unavailable("the job queue does not answer", code="QUEUE_UNAVAILABLE")
        return self._connection

    @property
    def is_up(self) -> bool:
        """Whether there is an open connection."""
        return self._connection is not None

    async def wait(self) -> Connection:
        """Return the open connection, once there is one."""
        while self._connection is None:
            await self._up.wait()
        return self._connection

    async def run(self) -> None:
        """Keep a connection open until cancelled."""
        pause_s = PAUSE_S_MIN
        while True:
            try:
                await self._hold()
                pause_s = PAUSE_S_MIN
            except (OSError, TimeoutError, hiredis.ReplyError, Misconfigured) as e:
                if pause_s == PAUSE_S_MIN:
                    log.warning("redis.away", link=self._name, error=str(e))
                pause_s = min(pause_s * 2, PAUSE_S_MAX)
            # Jitter, so that a fleet does not come back in one instant.
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311

    async def _hold(self) -> None:
        connection = await connect(self._redis, self._answer_timeout_s, self._on_message)
        try:
            if self._on_connect is not None:
                await self._on_connect(connection)
            self._set(connection)
            log.info("redis.connected", link=self._name)
            while not connection.lost.done():
                await asyncio.wait({connection.lost}, timeout=self._keepalive_s)
                if self._keepalive_s is not None:
                    # The watchdog ends the connection when this is not answered.
                    connection.send(("PING",))
        finally:
            self._set(None)
            connection.close()

    def _set(self, connection: Connection | None) -> None:
        self._connection = connection
        metrics.REDIS_CONNECTED.labels(self._name).set(connection is not None)
        if connection is None:
            self._up.clear()
        else:
            self._up.set()


@asynccontextmanager
async def running(*links: Link) -> AsyncIterator[None]:
    """Run links in the background."""
    tasks = [asyncio.create_task(link.run()) for link in links]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
