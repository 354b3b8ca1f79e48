"""`tickgate migrate` that stops and waits to be killed, at any place: `python -m tests.migrations PLACE`.

PLACE: `after:N` waits behind the Nth step it applies, `inside:STORE:N` in the middle of that store's step N. It prints
each step that it has applied, and `here` once it waits. Settings come from the environment, as of every process.
"""

import asyncio
import sys
from typing import Any

from clickhouse_connect.driver import AsyncClient
from redis.asyncio.client import Pipeline

from core.adapters.postgres.schema import PostgresSchema
from core.adapters.weaviate.client import STEPS_COLLECTION
from core.adapters.weaviate.schema import WeaviateSchema
from core.infrastructure.config_manager import load_settings
from core.infrastructure.migrator import migrate


async def wait_to_be_killed() -> None:
    print("here", flush=True)
    await asyncio.Event().wait()


def stop_in_postgres(number: int) -> None:
    """Stop when the step's statements have run and their transaction has not ended."""
    apply = PostgresSchema.apply

    async def stopping(schema: PostgresSchema, step: Any) -> None:
        if step.number == number:
            async with schema._connection.transaction():
                await schema._connection.execute(step.sql)
                await wait_to_be_killed()
        await apply(schema, step)

    PostgresSchema.apply = stopping  # type: ignore[method-assign]


def stop_in_clickhouse(number: int) -> None:
    """Stop when all statements of the step have run and it is not noted."""
    command = AsyncClient.command

    async def stopping(client: AsyncClient, *arguments: Any, **keywords: Any) -> Any:
        if (keywords.get("parameters") or {}).get("number") == number:
            await wait_to_be_killed()
        return await command(client, *arguments, **keywords)

    AsyncClient.command = stopping  # type: ignore[method-assign]


def stop_in_redis(_number: int) -> None:
    """Stop when the step's commands are gathered and not sent."""

    async def stopping(_pipeline: Any, *_arguments: Any, **_keywords: Any) -> Any:
        await wait_to_be_killed()

    Pipeline.execute = stopping  # type: ignore[method-assign]


def stop_in_weaviate(_number: int) -> None:
    """Stop when the first collection of the step has been made."""
    make = WeaviateSchema._make

    async def stopping(schema: WeaviateSchema, definition: Any) -> None:
        await make(schema, definition)
        if definition["class"] != STEPS_COLLECTION:
            await wait_to_be_killed()

    WeaviateSchema._make = stopping  # type: ignore[method-assign]


STOPS = {
    "postgres": stop_in_postgres,
    "clickhouse": stop_in_clickhouse,
    "redis": stop_in_redis,
    "weaviate": stop_in_weaviate,
}


async def main(place: str) -> None:
    kind, *where = place.split(":")
    if kind == "inside":
        STOPS[where[0]](int(where[1]))
    count = 0
    async for step in migrate(load_settings()):
        print(step, flush=True)
        count += 1
        if kind == "after" and count == int(where[0]):
            await wait_to_be_killed()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
