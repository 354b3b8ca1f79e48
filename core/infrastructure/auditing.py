"""The audit trail from the operator's side: verify it, prove one event, write a stream out."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from core.auditing.checkpoints import Checkpoint, Keyring
from core.auditing.merkle import inclusion, leaf
from core.auditing.verification import Verdict, verify
from core.errors.exceptions import Corrupt, Invalid, Misconfigured, NotFound
from core.infrastructure.anchors import anchor_at
from core.infrastructure.central_hub import open_hub
from core.infrastructure.signing_keys import read_public_keys
from core.model.audit import AuditEntry
from core.ports.audit import AuditArchive
from core.settings import Settings

BATCH: Final = 2_000


class ExportedEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line of an export. event: the text that was hashed, as it was; hash: hexadecimal."""

    stream: str
    seq: int
    type: str
    account: str
    order: str
    event: str
    hash: str


async def verify_streams(settings: Settings, stream: str, anchor: str) -> Sequence[Verdict]:
    """Verify one stream, or all there are here or outside. anchor: "" for the one of the settings.

    Raises: Misconfigured: no public keys or anchor is set up. NotFound: there is no such stream. Unavailable.
    """
    keyring, checkpoints = _outside(settings, anchor)
    async with open_hub(settings, {"audit_archive"}) as hub:
        archive: AuditArchive = hub["audit_archive"]
        names = {name for name, _seq in await archive.streams()} | checkpoints.keys()
        if stream:
            if stream not in names:
                raise NotFound(f"there is no stream {stream!r}", code="STREAM_NOT_FOUND")
            names = {stream}
        return [
            verify(name, [e async for e in _entries(archive, name)], checkpoints.get(name, []), keyring)
            for name in sorted(names)
        ]


def verify_file(settings: Settings, path: Path, anchor: str) -> Sequence[Verdict]:
    """Verify an exported stream. Raises: Invalid: there is no such file. Corrupt: it is no export. Misconfigured."""
    keyring, checkpoints = _outside(settings, anchor)
    entries: dict[str, list[AuditEntry]] = {}
    try:
        for line in path.read_bytes().splitlines():
            one = msgspec.json.decode(line, type=ExportedEntry)
            entries.setdefault(one.stream, []).append(
                AuditEntry(
                    seq=one.seq,
                    type=one.type,
                    account=one.account,
                    order=one.order,
                    event=one.event.encode(),
                    hash=bytes.fromhex(one.hash),
                )
            )
    except OSError as e:
        raise Invalid(f"{path} cannot be read: {e.strerror}", code="BAD_ARGUMENTS") from e
    except (ValueError, msgspec.MsgspecError) as e:
        raise Corrupt(f"{path} is no export of the audit trail: {e}", code="EXPORT_UNREADABLE") from e
    return [verify(name, found, checkpoints.get(name, []), keyring) for name, found in entries.items()]


async def export(settings: Settings, stream: str) -> AsyncIterator[bytes]:
    """Write a stream out, a line an event. Raises: Unavailable."""
    async with open_hub(settings, {"audit_archive"}) as hub:
        async for entry in _entries(hub["audit_archive"], stream):
            line = ExportedEntry(
                stream=stream,
                seq=entry.seq,
                type=entry.type,
                account=entry.account,
                order=entry.order,
                event=entry.event.decode(),
                hash=entry.hash.hex(),
            )
            yield msgspec.json.encode(line) + b"\n"


async def prove(settings: Settings, stream: str, seq: int, anchor: str) -> dict[str, Any]:
    """Return a proof that an event is in its stream: the event, the path to the root, the signed root.

    Raises: NotFound: there is no such event, or no checkpoint vouches for it yet. Misconfigured, Unavailable.
    """
    _keyring, checkpoints = _outside(settings, anchor)
    vouching = next((one for one in checkpoints.get(stream, []) if one.size >= seq), None)
    if vouching is None or seq < 1:
        raise NotFound(f"no checkpoint vouches for event {seq} of {stream!r}", code="NOT_ANCHORED")
    async with open_hub(settings, {"audit_archive"}) as hub:
        entries = [entry async for entry in _entries(hub["audit_archive"], stream, vouching.size)]
    if len(entries) < vouching.size:
        raise Corrupt("events are missing; see `tickgate audit verify`", code="AUDIT_BROKEN")
    path = inclusion([leaf(entry.hash) for entry in entries], seq - 1)
    entry = entries[seq - 1]
    return {
        "stream": stream,
        "seq": seq,
        "event": entry.event.decode(),
        "previous": (entries[seq - 2].hash if seq > 1 else bytes(32)).hex(),
        "hash": entry.hash.hex(),
        "path": [one.hex() for one in path],
        "checkpoint": msgspec.to_builtins(vouching),
    }


def _outside(settings: Settings, anchor: str) -> tuple[Keyring, dict[str, list[Checkpoint]]]:
    address = anchor or settings.audit.anchor
    if not settings.audit.keys_file or not address:
        raise Misconfigured(
            "set audit.keys_file and audit.anchor, or nobody can tell what the trail was",
            code="AUDIT_NOT_SET_UP",
        )
    keyring = Keyring(read_public_keys(Path(settings.audit.keys_file)))
    found: dict[str, list[Checkpoint]] = {}
    for one in anchor_at(address).all():
        found.setdefault(one.stream, []).append(one)
    return keyring, found


async def _entries(archive: AuditArchive, stream: str, until: int = 0) -> AsyncIterator[AuditEntry]:
    after = 0
    while True:
        limit = min(BATCH, until - after) if until else BATCH
        found = await archive.entries(stream, after=after, limit=limit) if limit else []
        for entry in found:
            yield entry
        if len(found) < BATCH:
            return
        after = found[-1].seq
