"""Migrations: numbered steps a store, applied forward only, under one lock, each with its checksum kept.

An interrupted migration is finished by the next: a step is noted with what it does, where the store can do both in one
transaction, and otherwise after it, and may then be applied once more.
"""

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

from core.errors.exceptions import Unavailable
from core.infrastructure.central_hub import open_hub
from core.infrastructure.import_manager import resolve
from core.infrastructure.providers import CHOSEN, PROVIDERS
from core.infrastructure.schemas import STAND_INS, STORES, pending
from core.ports.schemas import LockingSchema, Schema, SchemaStep
from core.settings import Settings

NOT_CREATED: Final = "STORE_NOT_MIGRATED"
"""The code of a store that is there, and our database not yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far a store's schema is. at: its last step, None where there is none; stand_in: who keeps its tables."""

    store: str
    at: int | None = None
    missing: tuple[SchemaStep, ...] = ()
    stand_in: str = ""


def stores_in_use(settings: Settings) -> tuple[str, ...]:
    """Return the stores that have a schema of their own as these settings have it, in the order of migration."""
    return tuple(
        store
        for store in STORES
        if store not in STAND_INS or (store in CHOSEN and getattr(settings, store).host)
    )


async def plan(settings: Settings) -> tuple[Standing, ...]:
    """Say of every store how far it is and what `migrate` would apply. Nothing is written, and no lock waited for.

    Raises:
        Unavailable: a store does not answer. Misconfigured, Corrupt: see `pending`.
    """
    used = stores_in_use(settings)
    standings = []
    for store in STORES:
        if store in used:
            applied = await _applied(settings, store)
            missing = pending(store, applied)
            standings.append(Standing(store=store, at=max(applied, default=None), missing=missing))
        else:
            standings.append(Standing(store=store, stand_in=STAND_INS[store]))
    return tuple(standings)


async def migrate(
    settings: Settings,
    waiting: Callable[[], None] = lambda: None,
    only: Mapping[str, Collection[int]] | None = None,
) -> AsyncIterator[str]:
    """Apply what is pending, naming each step once it is done. Whatever is wrong with any store, nothing is applied.

    waiting: called once if another migration runs, which is waited for.
    only: by store, the steps that may be applied; None for all of them.

    Raises: as `plan` does; Unavailable also where the other migration does not end (code MIGRATION_RUNNING).
    """
    async with AsyncExitStack() as stack:
        schemas = await _open(settings, waiting, stack)
        ledger: Any = schemas["postgres"]
        lock: LockingSchema = ledger
        todo = {store: pending(store, await schema.applied()) for store, schema in schemas.items()}
        for store, missing in todo.items():
            for step in missing:
                if only is not None and step.number not in only.get(store, ()):
                    continue
                # The lock goes with the ledger's connection; without it another migration may be at this step.
                await lock.require_held()
                await schemas[store].apply(step)
                yield f"{store} {step.number:04} {step.name}"


async def _applied(settings: Settings, store: str) -> Mapping[int, str]:
    reads = resolve(PROVIDERS[store].schema)
    try:
        async with open_hub(settings, {store}, checked=False) as hub:
            applied: Mapping[int, str] = await reads(hub[store])
    except Unavailable as e:
        if e.code != NOT_CREATED:
            raise
        return {}
    return applied


async def _open(settings: Settings, waiting: Callable[[], None], stack: AsyncExitStack) -> dict[str, Schema]:
    schemas: dict[str, Schema] = {}
    for store in stores_in_use(settings):
        opens = resolve(f"core.adapters.{store}.schema:open_schema")
        # Only the one that holds the lock can be kept waiting.
        schema = opens(settings, waiting) if store == STORES[0] else opens(settings)
        schemas[store] = await stack.enter_async_context(schema)
    return schemas
