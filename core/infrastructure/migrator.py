"""Migrations: numbered SQL files a store, applied forward only, under one lock, each with its checksum kept."""

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from importlib.resources import files
from typing import Final

from core.errors.exceptions import Corrupt, Misconfigured
from core.infrastructure.import_manager import resolve
from core.ports.schemas import Schema, SchemaStep
from core.settings import Settings

STORES: Final[tuple[str, ...]] = ("postgres", "clickhouse")
"""In this order: holding PostgreSQL's schema open holds the lock for all."""


def steps(store: str) -> tuple[SchemaStep, ...]:
    """Return the steps the code knows, by number; `0001_ticks.sql` is step 1, named `ticks`."""
    found = []
    for file in files("core.adapters").joinpath(store, "migrations").iterdir():
        number, _, name = file.name.removesuffix(".sql").partition("_")
        sql = file.read_text()
        checksum = hashlib.sha256(sql.encode()).hexdigest()
        found.append(SchemaStep(number=int(number), name=name, sql=sql, checksum=checksum))
    return tuple(sorted(found, key=lambda step: step.number))


def pending(store: str, applied: Mapping[int, str]) -> tuple[SchemaStep, ...]:
    """Return what is still to be applied.

    Raises:
        Misconfigured: the store was migrated by a newer version of us.
        Corrupt: a step was edited after it had been applied.
    """
    known = steps(store)
    if newer := applied.keys() - {step.number for step in known}:
        raise Misconfigured(
            f"{store} is at step {max(newer)}, this version knows {len(known)}; run the newer version",
            code="SCHEMA_NEWER",
        )
    for step in known:
        if applied.get(step.number, step.checksum) != step.checksum:
            raise Corrupt(
                f"{store} step {step.number} was edited after it had been applied", code="SCHEMA_EDITED"
            )
    return tuple(step for step in known if step.number not in applied)


async def plan(settings: Settings) -> Mapping[str, Sequence[str]]:
    """Name the steps that `migrate` would apply, by store.

    Raises:
        Unavailable: a store does not answer. Misconfigured, Corrupt: see `pending`.
    """
    async with AsyncExitStack() as stack:
        schemas = await _open(settings, stack)
        return {
            store: [f"{step.number:04} {step.name}" for step in pending(store, await schema.applied())]
            for store, schema in schemas.items()
        }


async def migrate(settings: Settings) -> AsyncIterator[str]:
    """Apply what is pending, naming each step once it is done. Raises as `plan` does."""
    async with AsyncExitStack() as stack:
        for store, schema in (await _open(settings, stack)).items():
            for step in pending(store, await schema.applied()):
                await schema.apply(step)
                yield f"{store} {step.number:04} {step.name}"


async def _open(settings: Settings, stack: AsyncExitStack) -> dict[str, Schema]:
    schemas: dict[str, Schema] = {}
    for store in STORES:
        opens = resolve(f"core.adapters.{store}.schema:open_schema")
        schemas[store] = await stack.enter_async_context(opens(settings))
    return schemas
