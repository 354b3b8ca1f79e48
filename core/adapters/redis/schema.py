"""Note in Redis which layout its keys have, so that a version that would misread them does not start.

A step is JSON: what it `says`, and `commands` that move or drop keys. They are sent in one transaction with the step's
note, so a step that was cut off never happened. An emptied Redis has no notes and no keys: it is new, not old.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from core.adapters.redis.client import RedisClient, open_client
from core.ports.schemas import SchemaStep
from core.settings import Settings

STEPS_KEY: Final = "tickgate:schema"
"""A hash: the number of a step to its checksum."""


class StepText(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A step's file."""

    says: str
    commands: list[list[str]]


class RedisSchema:
    """The `Schema` port on Redis. The ledger's migration lock is held around it."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def applied(self) -> Mapping[int, str]:
        return await applied_steps(self._client)

    async def apply(self, step: SchemaStep) -> None:
        text = msgspec.json.decode(step.sql, type=StepText)
        async with self._client.redis.pipeline(transaction=True) as pipeline:
            for command in text.commands:
                pipeline.execute_command(*command)
            pipeline.hset(STEPS_KEY, str(step.number), step.checksum)
            await self._client.ask(pipeline.execute())


async def applied_steps(client: RedisClient) -> Mapping[int, str]:
    """Return the checksum of every step applied, by number; nothing is written. Raises: Unavailable."""
    noted = await client.ask(client.redis.hgetall(STEPS_KEY))  # type: ignore[arg-type]
    return {int(number): checksum.decode() for number, checksum in noted.items()}


@asynccontextmanager
async def open_schema(settings: Settings) -> AsyncIterator[RedisSchema]:
    """Raises: Misconfigured: it refuses our password."""
    async with open_client(settings, {}) as client:
        yield RedisSchema(client)
