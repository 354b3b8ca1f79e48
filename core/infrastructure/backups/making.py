"""Make a backup while everybody works: the ledger's snapshot first, the other stores' behind it, the manifest last.

What the ledger refers to is in the others, because it was there before: a tally is recorded once its ticks are durable.
What the others hold of epochs the ledger did not know yet is left out; a connector brings it again.
"""

import asyncio
import base64
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Final, Protocol

import msgspec

from core.infrastructure.backups.archive import PartWriter, pieces_of
from core.infrastructure.backups.manifest import VERSION, Manifest, Part, decode, encode, path_of
from core.infrastructure.backups.sealing import SALT_BYTES, key_of
from core.infrastructure.backups.vaults import Vault
from core.infrastructure.central_hub import Hub, open_hub
from core.infrastructure.deployment.layout import Layout
from core.infrastructure.import_manager import resolve
from core.infrastructure.migrator import stores_in_use
from core.infrastructure.providers import PROVIDERS
from core.ports.backups import Sink, Snapshot
from core.settings import Secret, Settings

LEDGER: Final = "postgres"
DUMPED: Final[tuple[str, ...]] = ("clickhouse", "redis", "weaviate", "arango")
"""In this order, behind the ledger; those that are in use."""
FILES: Final = "files"
BELONGINGS: Final = "belongings"


class Progress(Protocol):
    """Where is told what is done."""

    def begun(self, text: str) -> None:
        """Say what is being done now."""

    def done(self, text: str) -> None:
        """Say what has been done."""


class Belonging(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the data directory. content: base64."""

    path: str
    content: str


def service_of(store: str) -> str:
    """Return the name the hub has for a store's dumps."""
    return f"{store}_dumps"


def dumped(settings: Settings) -> list[str]:
    """Return the stores behind the ledger that a backup holds, in order."""
    return [store for store in DUMPED if store in stores_in_use(settings)]


async def back_up(
    settings: Settings, vault: Vault, secret: Secret | None, layout: Layout | None, progress: Progress
) -> Manifest:
    """Write a backup to an empty vault, read it back, and return its manifest; on any error nothing is left there.

    layout: the data directory whose keys and credentials go with it, where the backup is encrypted.

    Raises:
        Unavailable: a store or the vault does not answer. Conflict: the vault is not empty, or a migration runs.
        Corrupt: what was read back is not what was written.
    """
    await asyncio.to_thread(vault.begin)
    try:
        manifest, key = await _write(settings, vault, secret, layout, progress)
        progress.begun("reading it back")
        await _prove(vault, manifest, key, progress)
        await asyncio.to_thread(vault.write_manifest, encode(manifest, key))
        await asyncio.to_thread(read_manifest, vault, secret)
    except BaseException:
        with contextlib.suppress(Exception):
            await asyncio.to_thread(vault.discard)
        raise
    return manifest


async def check(vault: Vault, secret: Secret | None, progress: Progress) -> tuple[Manifest, bytes | None]:
    """Read all of a backup and return its manifest and the key of its parts.

    Raises: NotFound, Corrupt, Misconfigured, Unavailable.
    """
    manifest, key = await asyncio.to_thread(read_manifest, vault, secret)
    await _prove(vault, manifest, key, progress)
    return manifest, key


def read_manifest(vault: Vault, secret: Secret | None) -> tuple[Manifest, bytes | None]:
    """Return the manifest and the key of the parts. Raises: as `decode` does, and NotFound."""
    return decode(vault.read_manifest(), secret)


async def _write(
    settings: Settings, vault: Vault, secret: Secret | None, layout: Layout | None, progress: Progress
) -> tuple[Manifest, bytes | None]:
    started_at = _now()
    stores = dumped(settings)
    salt = secrets.token_bytes(SALT_BYTES) if secret is not None else b""
    key = await asyncio.to_thread(key_of, secret, salt) if secret is not None else None
    writing = _Writing(vault=vault, key=key, progress=progress)
    needs = {service_of(store) for store in (LEDGER, *stores)} | {LEDGER, *stores}
    async with open_hub(settings, needs) as hub, hub[service_of(LEDGER)].snapshot() as ledger:
        steps = {store: await _steps(hub, store) for store in (LEDGER, *stores)}
        await writing.store(LEDGER, ledger)
        for store in stores:
            async with hub[service_of(store)].snapshot(ledger.epochs) as snapshot:
                await writing.store(store, snapshot)
    if layout is not None and key is not None:
        belongings = await asyncio.to_thread(_belongings, layout)
        await writing.part(f"{FILES}/{BELONGINGS}", lambda sink: sink(belongings, belongings.count(b"\n")))
    manifest = Manifest(
        version=VERSION,
        id=secrets.token_hex(8),
        started_at=started_at,
        finished_at=_now(),
        salt=salt.hex(),
        steps=steps,
        parts=writing.parts,
    )
    return manifest, key


@dataclass(slots=True, kw_only=True)
class _Writing:
    """A backup in the making. parts: what is written of it."""

    vault: Vault
    key: bytes | None
    progress: Progress
    parts: list[Part] = field(default_factory=list)

    async def store(self, store: str, snapshot: Snapshot) -> None:
        before = len(self.parts)
        for part in snapshot.parts:
            self.progress.begun(f"writing {store}/{part}")
            await self.part(f"{store}/{part}", partial(snapshot.write, part))
        ours = self.parts[before:]
        rows, size = sum(part.rows for part in ours), sum(part.bytes for part in ours)
        self.progress.done(f"{store}: {rows:,} rows in {len(ours)} parts, {size:,} bytes")

    async def part(self, name: str, hand_over: Callable[[Sink], Awaitable[None]]) -> None:
        with self.vault.create(path_of(name)) as raw:
            writer = PartWriter(raw, self.key, name)
            await hand_over(writer.put)
            self.parts.append(await writer.finish())


async def _prove(vault: Vault, manifest: Manifest, key: bytes | None, progress: Progress) -> None:
    """Read every part: its hash, its size, its rows, and every seal."""

    def read(part: Part) -> None:
        with vault.open(part.path) as raw:
            for _ in pieces_of(raw, key, part):
                pass

    for part in manifest.parts:
        progress.begun(f"checking {part.name}")
        await asyncio.to_thread(read, part)
    progress.done(f"{len(manifest.parts)} parts are whole: {manifest.rows:,} rows, {manifest.bytes:,} bytes")


async def _steps(hub: Hub, store: str) -> dict[int, str]:
    applied: Mapping[int, str] = await resolve(PROVIDERS[store].schema)(hub[store])
    return dict(applied)


def _belongings(layout: Layout) -> bytes:
    """Return what cannot be made again: signing keys, and the credentials the ledger knows."""
    files = [layout.key_file, layout.jwks_file, layout.audit_key_file, layout.audit_keys_file]
    files += [layout.order_key_file, layout.order_keys_file]
    files.append(layout.credentials_file)
    files += sorted((layout.root / "connectors").glob("*.json"))
    lines = [
        msgspec.json.encode(
            Belonging(
                path=str(file.relative_to(layout.root)), content=base64.b64encode(file.read_bytes()).decode()
            )
        )
        + b"\n"
        for file in files
        if file.is_file()
    ]
    return b"".join(lines)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
