"""News of audit trails by publish and subscribe: the name of a tenant, told after its commit, heard by every gateway.

Not PostgreSQL's NOTIFY: whoever notifies holds a lock of the whole server until the commit has reached the disk, so
that orders of all tenants would commit one after the other. What is lost here is found in the trail a moment later.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from core.adapters.redis.connection import Connection
from core.adapters.redis.link import Link, running
from core.errors.exceptions import Unavailable
from core.settings import RedisSettings, Settings


def channel_of(redis: RedisSettings) -> str:
    """Return where news are told. Channels are the server's, not its databases'."""
    return f"tickgate:trail:{redis.database}"


class RedisTrailNews:
    """The `TrailNews` port on Redis."""

    def __init__(self, redis: RedisSettings) -> None:
        self.link = Link(redis, "trail news")
        self._channel = channel_of(redis)

    def moved(self, tenant: str) -> None:
        try:
            self.link.get().send(("PUBLISH", self._channel, tenant))
        except Unavailable:
            # They are hints; who follows a trail looks into it by himself now and then.
            return


class RedisTrailEars:
    """The `TrailEars` port on Redis."""

    def __init__(self, redis: RedisSettings) -> None:
        self.link = Link(redis, "trail ears", on_message=self._hear, on_connect=self._subscribe)
        self._channel = channel_of(redis)
        self._heeding: list[Callable[[str | None], None]] = []

    @property
    def listening(self) -> bool:
        return self.link.is_up

    def heed(self, heard: Callable[[str | None], None]) -> None:
        self._heeding.append(heard)

    async def _subscribe(self, connection: Connection) -> None:
        await connection.ask(("SUBSCRIBE", self._channel))
        self._tell(None)

    def _hear(self, message: bytes) -> None:
        self._tell(message.decode(errors="replace"))

    def _tell(self, tenant: str | None) -> None:
        for heard in self._heeding:
            heard(tenant)


@asynccontextmanager
async def open_trail_news(settings: Settings, _services: Mapping[str, Any]) -> AsyncIterator[RedisTrailNews]:
    news = RedisTrailNews(settings.redis)
    async with running(news.link):
        yield news


@asynccontextmanager
async def open_trail_ears(settings: Settings, _services: Mapping[str, Any]) -> AsyncIterator[RedisTrailEars]:
    ears = RedisTrailEars(settings.redis)
    async with running(ears.link):
        yield ears
