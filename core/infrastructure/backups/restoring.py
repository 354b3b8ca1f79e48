"""Bring a backup back: prove all of it, then migrate empty stores to its schema, fill them, and migrate them forward.

The ledger comes last, in one transaction: until it is committed no connector and no client is let in, so a process that
was started too early finds nothing to do.
"""

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from core.errors.exceptions import Conflict, Corrupt, Misconfigured, Unavailable
from core.infrastructure.backups.archive import read_part
from core.infrastructure.backups.making import (
    BELONGINGS,
    FILES,
    LEDGER,
    Belonging,
    Progress,
    check,
    dumped,
    service_of,
)
from core.infrastructure.backups.manifest import Manifest, Part
from core.infrastructure.backups.vaults import Vault
from core.infrastructure.central_hub import open_hub
from core.infrastructure.deployment.belongings import write_private
from core.infrastructure.deployment.layout import Layout
from core.infrastructure.migrator import migrate, plan
from core.infrastructure.schemas import steps
from core.ports.backups import LedgerLoading, Loading
from core.settings import Secret, Settings

FOLDERS: Final = frozenset({"", "keys", "connectors"})
STORES_TIMEOUT_S: Final = 60.0
RETRY_S: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """A backup that was found whole. key: of its parts, None where they are not encrypted."""

    vault: Vault
    manifest: Manifest
    key: bytes | None

    @asynccontextmanager
    async def pieces(self, part: Part) -> AsyncIterator[AsyncIterator[bytes]]:
        with self.vault.open(part.path) as raw:
            yield read_part(raw, self.key, part)


async def require_fit(settings: Settings, vault: Vault, secret: Secret | None, progress: Progress) -> Backup:
    """Read all of a backup; nothing is touched yet.

    Raises:
        Corrupt: it is damaged, or was made with a step that was edited since. NotFound: there is none.
        Misconfigured: no or another key, a newer version's, or one of other stores than are set up here.
    """
    manifest, key = await check(vault, secret, progress)
    here = {LEDGER, *dumped(settings)}
    if missing := manifest.steps.keys() - here:
        raise Misconfigured(
            f"the backup holds {', '.join(sorted(missing))}, which is not set up here",
            code="STORE_NOT_SET_UP",
        )
    if unknown := here - manifest.steps.keys():
        # Its records are among the ledger's, where nobody would look for them.
        raise Misconfigured(
            f"the backup was made without {', '.join(sorted(unknown))}, which is set up here",
            code="STORE_NOT_IN_BACKUP",
        )
    for store, applied in manifest.steps.items():
        known = {step.number: step.checksum for step in steps(store)}
        if newer := applied.keys() - known.keys():
            raise Misconfigured(
                f"the backup has {store} at step {max(newer)}, which this version does not know",
                code="SCHEMA_NEWER",
            )
        if any(known[number] != checksum for number, checksum in applied.items()):
            raise Corrupt(f"a step of {store} was edited since the backup was made", code="SCHEMA_EDITED")
    return Backup(vault=vault, manifest=manifest, key=key)


async def restore(settings: Settings, backup: Backup, progress: Progress, *, replace: bool) -> None:
    """Fill the stores with a backup that `require_fit` has found whole.

    replace: delete what is there.

    Raises:
        Conflict: a store is not empty, or processes are running on it. Unavailable: a store does not answer.
        Corrupt: a part is not what it was; the ledger is as it was before.
    """
    manifest = backup.manifest
    await _migrate_to(settings, manifest, progress, replace=replace)
    stores = [store for store in dumped(settings) if store in manifest.steps]
    needs = {service_of(store) for store in (LEDGER, *stores)}
    async with open_hub(settings, needs, checked=False) as hub, AsyncExitStack() as stack:
        ledger: LedgerLoading = await stack.enter_async_context(hub[service_of(LEDGER)].loading())
        others = {
            store: await stack.enter_async_context(hub[service_of(store)].loading()) for store in stores
        }
        loadings: Mapping[str, Loading] = {**others, LEDGER: ledger}
        await _make_room(loadings, replace=replace)
        for store, loading in loadings.items():
            await _fill(store, loading, backup, progress)
        await ledger.note_restore(manifest.id)
    async for step in migrate(settings):
        progress.done(f"applied {step}")


async def restore_belongings(layout: Layout, backup: Backup) -> int:
    """Write keys and credentials back into the data directory; return how many files there were."""
    count = 0
    for part in backup.manifest.parts:
        if part.name == f"{FILES}/{BELONGINGS}":
            async with backup.pieces(part) as pieces:
                async for piece in pieces:
                    for line in piece.splitlines():
                        _write_belonging(layout, msgspec.json.decode(line, type=Belonging))
                        count += 1
    return count


def _write_belonging(layout: Layout, belonging: Belonging) -> None:
    path = Path(belonging.path)
    # A sealed backup is ours; a path out of the directory is refused all the same.
    if path.is_absolute() or len(path.parts) > 2 or str(path.parent).strip(".") not in FOLDERS:
        raise Corrupt(f"the backup names the file {belonging.path}", code="BACKUP_DAMAGED")
    file = layout.root / path
    file.parent.mkdir(mode=0o700, exist_ok=True)
    write_private(file, base64.b64decode(belonging.content).decode())
    if file.name == "credentials.json":
        layout.curl_file.unlink(missing_ok=True)


async def _migrate_to(settings: Settings, manifest: Manifest, progress: Progress, *, replace: bool) -> None:
    """Bring empty stores exactly as far as the backup's were. A store that is further takes the backup as it is now.

    Raises: Conflict: a store is not empty and further than the backup, whose columns may be others.
    """
    progress.begun("preparing the stores")
    for standing in await _patient_plan(settings):
        if standing.stand_in:
            continue
        ahead = {step.number for step in steps(standing.store)} - manifest.steps.get(
            standing.store, {}
        ).keys()
        if ahead <= {step.number for step in standing.missing}:
            continue
        if not replace:
            raise Conflict(
                f"{standing.store} has a newer schema than the backup; restore into an empty database",
                code="TARGET_NOT_EMPTY",
            )
    async for step in migrate(settings, only={store: set(done) for store, done in manifest.steps.items()}):
        progress.done(f"applied {step}")


async def _patient_plan(settings: Settings) -> Any:
    """An engine that listens may still be recovering, so it is asked again."""
    deadline = asyncio.get_running_loop().time() + STORES_TIMEOUT_S
    while True:
        try:
            return await plan(settings)
        except Unavailable:
            if asyncio.get_running_loop().time() >= deadline:
                raise
            await asyncio.sleep(RETRY_S)


async def _make_room(loadings: Mapping[str, Loading], *, replace: bool) -> None:
    for store, loading in loadings.items():
        if not (found := await loading.occupied()):
            continue
        if not replace:
            raise Conflict(
                f"{store} is not empty ({found}); --replace deletes what is there", code="TARGET_NOT_EMPTY"
            )
        await loading.clear()


async def _fill(store: str, loading: Loading, backup: Backup, progress: Progress) -> None:
    parts = {part.name.partition("/")[2]: part for part in backup.manifest.parts if part.store == store}
    if unknown := parts.keys() - set(loading.order(parts)):
        raise Corrupt(f"{store} has no {', '.join(sorted(unknown))}", code="BACKUP_DAMAGED")
    for name in loading.order(parts):
        progress.begun(f"restoring {store}/{name}")
        async with backup.pieces(parts[name]) as pieces:
            rows = await loading.load(name, pieces)
        if rows != parts[name].rows:
            raise Corrupt(
                f"{store}/{name} has {rows:,} rows, the backup {parts[name].rows:,}",
                code="RESTORE_INCOMPLETE",
            )
    progress.done(f"restored {store}: {sum(part.rows for part in parts.values()):,} rows")


def data_directory_is_used(layout: Layout) -> bool:
    """Whether engines have ever kept anything there."""
    engines = layout.root / "engines"
    return engines.is_dir() and any(entry.is_dir() and any(os.scandir(entry)) for entry in engines.iterdir())
