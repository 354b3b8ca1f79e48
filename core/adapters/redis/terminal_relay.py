"""Commands for terminals on their way through Redis: one inbox a bridge, one inbox a worker for the replies.

A key for each source says which bridge's inbox to use; a bridge that is gone lets it expire. Popping a command removes
it, so it is never given to two. Everything here expires by itself and may be lost: then nobody has asked, or nobody
can say, and orders are reconciled.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import hiredis
import structlog

from core.adapters.redis.connection import Lost
from core.adapters.redis.link import Link, running
from core.errors.exceptions import Invalid, Unavailable
from core.messages.terminal_orders import RelayedCommand, decode_relayed
from core.settings import Settings

log = structlog.get_logger(__name__)

HELD_MS: Final = 5_000
"""How long a bridge is believed to hold a source it has announced."""
POP_BLOCKS_S: Final = 1
TAKEN_AT_ONCE_MAX: Final = 64
KEPT_MS: Final = 60_000
"""Longer than anybody waits: what lies here this long is for nobody."""
PATIENCE_S: Final = 1.0
"""For a connection that is just being made; a lost one may take longer, and then nobody waits."""
TROUBLE: Final = (Lost, hiredis.ReplyError, TimeoutError)


def holder_key(source: str) -> str:
    """Name the key that tells which inbox takes commands for `source`."""
    return f"tickgate:terminal:{{{source}}}:inbox"


def new_inbox(whose: str) -> str:
    """Name an inbox nobody has had before."""
    return f"tickgate:terminal:{whose}:{uuid.uuid4().hex}"


class RedisTerminalRelay:
    """The `TerminalRelay` port on Redis. pops: a link of its own, because waiting for commands blocks it."""

    def __init__(self, link: Link, pops: Link) -> None:
        self._link = link
        self._pops = pops
        self._inbox = new_inbox("bridge")

    async def announce(self, sources: Collection[str]) -> None:
        if sources:
            commands = [("SET", holder_key(source), self._inbox, "PX", HELD_MS) for source in sources]
            await ask(self._link, *commands)

    async def take(self) -> Sequence[RelayedCommand]:
        (popped,) = await ask(
            self._pops, ("BLMPOP", POP_BLOCKS_S, 1, self._inbox, "LEFT", "COUNT", TAKEN_AT_ONCE_MAX)
        )
        taken: list[RelayedCommand] = []
        for body in popped[1] if popped else ():
            try:
                taken.append(decode_relayed(body))
            except Invalid as e:
                # Whoever wrote it will find it taken and no answer to it.
                log.error("order_command.unreadable", error=str(e))
        return taken

    async def answer(self, reply_to: str, reply: bytes) -> None:
        await ask(self._link, ("RPUSH", reply_to, reply), ("PEXPIRE", reply_to, KEPT_MS))


async def ask(link: Link, *commands: tuple[str | bytes | int, ...]) -> list[Any]:
    """Send commands and return their answers. Raises: Unavailable; then they may have happened."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            connection = await link.wait()
        return await connection.ask(*commands)
    except TROUBLE as e:
        raise Unavailable(
            "orders cannot be passed on", code="RELAY_UNAVAILABLE", detail=str(e) or type(e).__name__
        ) from e


@asynccontextmanager
async def open_terminal_relay(
    settings: Settings, _services: Mapping[str, Any]
) -> AsyncIterator[RedisTerminalRelay]:
    """Open it. An absent Redis is no reason not to start: everything raises Unavailable until it is there."""
    link = Link(settings.redis, "terminal relay")
    pops = Link(settings.redis, "terminal relay pops", blocking_s=POP_BLOCKS_S)
    async with running(link, pops):
        yield RedisTerminalRelay(link, pops)
