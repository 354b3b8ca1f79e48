"""What an operator does with queues and dead letters from the command line, over all tenants."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from core.errors.exceptions import Conflict, Corrupt, Unavailable
from core.infrastructure.central_hub import Hub, open_hub
from core.infrastructure.replaying import replay
from core.messages.dead_letters import DeadLetter, DeadLetterState
from core.messages.queues import QueueStanding
from core.settings import Settings

NEEDS: Final = frozenset({"job_queue", "queue_control", "dead_letters"})
CONNECT_PATIENCE_S: Final = 5.0
CONNECT_PAUSE_S: Final = 0.02
PAGE: Final = 500


async def standings(settings: Settings) -> Sequence[QueueStanding]:
    """Return how every queue stands. Raises: Unavailable."""
    async with open_hub(settings, {"job_queue", "queue_control"}) as hub:
        return await _connected(hub)


async def dead_letters(settings: Settings, count: int) -> Sequence[DeadLetter]:
    """Return the youngest `count`. Raises: Unavailable."""
    async with open_hub(settings, {"dead_letters"}) as hub:
        letters: Sequence[DeadLetter] = await hub["dead_letters"].page(None, None, count)
        return letters


async def dead_letter(settings: Settings, letter_id: str) -> DeadLetter:
    """Return one. Raises: NotFound, Unavailable."""
    async with open_hub(settings, {"dead_letters"}) as hub:
        letter: DeadLetter = await hub["dead_letters"].one(letter_id, None)
        return letter


async def replay_one(settings: Settings, letter_id: str) -> DeadLetter:
    """Ask one again. Raises: NotFound, Conflict, Corrupt, Unavailable."""
    async with _opened(settings) as hub:
        return await replay(hub["dead_letters"], hub["queue_control"], letter_id, None)


async def replay_all(settings: Settings) -> AsyncIterator[DeadLetter | tuple[str, str]]:
    """Ask every dead one again, the youngest first. Yields each, or its id and why not. Raises: Unavailable."""
    async with _opened(settings) as hub:
        before: str | None = None
        while page := await hub["dead_letters"].page(None, before, PAGE):
            before = page[-1].id
            for letter in page:
                if letter.state is DeadLetterState.DEAD:
                    try:
                        yield await replay(hub["dead_letters"], hub["queue_control"], letter.id, None)
                    except (Conflict, Corrupt) as e:
                        yield letter.id, e.public


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Hub]:
    async with open_hub(settings, NEEDS) as hub:
        await _connected(hub)
        yield hub


async def _connected(hub: Hub) -> Sequence[QueueStanding]:
    """Wait for the queue's connection, which is made in the background, and ask something of it."""
    deadline = asyncio.get_running_loop().time() + CONNECT_PATIENCE_S
    while True:
        try:
            found: Sequence[QueueStanding] = await hub["queue_control"].standings()
        except Unavailable:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(CONNECT_PAUSE_S)
        else:
            return found
