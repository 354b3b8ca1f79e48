"""Seal what has been added to a stream: read it, see that it is chained, and sign what the stream is now."""

import time
from typing import Final

import msgspec
import structlog

from core.auditing.chain import FIRST, chained
from core.auditing.checkpoints import FIRST as FIRST_CHECKPOINT
from core.auditing.checkpoints import Checkpoint, Signer
from core.auditing.merkle import Frontier
from core.errors.exceptions import Corrupt
from core.model.audit import KeptCheckpoint
from core.ports.audit import AuditArchive

log = structlog.get_logger(__name__)

BATCH: Final = 2_000
EVENTS_MAX: Final = 100_000
"""In one go; what is left waits for the next."""


async def seal(archive: AuditArchive, stream: str, signer: Signer) -> Checkpoint | None:
    """Keep a checkpoint of what the stream is now; None where nothing was added, or somebody else has just done it.

    Raises: Corrupt: what was added is not chained to what was there. Unavailable.
    """
    last = await archive.newest_checkpoint(stream)
    tree = Frontier(last.size, last.roots) if last else Frontier()
    head = last.head if last else FIRST
    until = tree.size + EVENTS_MAX
    while tree.size < until:
        entries = await archive.entries(stream, after=tree.size, limit=BATCH)
        for entry in entries:
            if entry.seq != tree.size + 1 or entry.hash != chained(stream, entry.seq, head, entry.event):
                raise Corrupt(
                    f"event {tree.size + 1} of {stream} is not chained to what was there", code="AUDIT_BROKEN"
                )
            tree.add(entry.hash)
            head = entry.hash
        if len(entries) < BATCH:
            break
    if tree.size == (last.size if last else 0):
        return None
    checkpoint = signer.signed(
        Checkpoint(
            stream=stream,
            size=tree.size,
            root=tree.root().hex(),
            head=head.hex(),
            previous=read(last.text).digest() if last else FIRST_CHECKPOINT,
            at_ms=int(time.time() * 1_000),
            key=signer.key_id,
        )
    )
    kept = KeptCheckpoint(
        stream=stream,
        size=tree.size,
        text=msgspec.json.encode(checkpoint),
        head=head,
        roots=tuple(tree.roots),
        after=last.size if last else 0,
    )
    return checkpoint if await archive.keep_checkpoint(kept) else None


def read(text: bytes) -> Checkpoint:
    """Return a checkpoint from its JSON. Raises: Corrupt."""
    try:
        return msgspec.json.decode(text, type=Checkpoint)
    except msgspec.MsgspecError as e:
        raise Corrupt("a checkpoint cannot be read", code="CHECKPOINT_UNREADABLE", detail=str(e)) from e
