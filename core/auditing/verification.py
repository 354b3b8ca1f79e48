"""Is a stream what it was? Every event's hash, every number, and every checkpoint that was kept outside."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from core.auditing.chain import FIRST, canonical, chained
from core.auditing.checkpoints import FIRST as FIRST_CHECKPOINT
from core.auditing.checkpoints import Checkpoint, Keyring
from core.auditing.merkle import Frontier
from core.model.audit import AuditEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is wrong, and from where on nothing can be believed. seq: of the first bad event, 0 for a checkpoint."""

    stream: str
    seq: int
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """events: that are sound; anchored: of them, those a checkpoint outside vouches for."""

    stream: str
    events: int
    anchored: int
    finding: Finding | None = None


def verify(
    stream: str, entries: Iterable[AuditEntry], checkpoints: Sequence[Checkpoint], keyring: Keyring
) -> Verdict:
    """Return whether a stream's entries, in the order of their seq, are what the checkpoints say they were."""
    if finding := _checkpoints(stream, checkpoints, keyring):
        return Verdict(stream=stream, events=0, anchored=0, finding=finding)
    expected = {one.size: one for one in checkpoints}
    tree, previous, anchored = Frontier(), FIRST, 0
    for entry in entries:
        seq = tree.size + 1
        if problem := _entry(stream, entry, seq, previous):
            return _bad(stream, seq, problem, tree, anchored)
        previous = entry.hash
        tree.add(entry.hash)
        vouched = expected.get(seq)
        if vouched is not None:
            if (vouched.root, vouched.head) != (tree.root().hex(), previous.hex()):
                return _bad(stream, anchored + 1, "not what its checkpoint says it was", tree, anchored)
            anchored = seq
    beyond = max(expected, default=0)
    if beyond > tree.size:
        text = f"missing: a checkpoint knows {beyond:,} events"
        return _bad(stream, tree.size + 1, text, tree, anchored)
    return Verdict(stream=stream, events=tree.size, anchored=anchored)


def _entry(stream: str, entry: AuditEntry, seq: int, previous: bytes) -> str:
    if entry.seq != seq:
        return f"number {entry.seq} stands where {seq} should"
    if entry.hash != chained(stream, seq, previous, entry.event):
        return "its hash is another"
    try:
        event = msgspec.json.decode(entry.event)
    except msgspec.DecodeError:
        return "it is no JSON"
    if not isinstance(event, dict) or canonical(event) != entry.event:
        return "it is not written as events are"
    told = (event.get("type"), event.get("account"), event.get("order"))
    return "" if told == (entry.type, entry.account, entry.order) else "its columns say something else"


def _checkpoints(stream: str, checkpoints: Sequence[Checkpoint], keyring: Keyring) -> Finding | None:
    previous, size = FIRST_CHECKPOINT, 0
    for number, one in enumerate(checkpoints, 1):
        if not keyring.verifies(one):
            return Finding(stream=stream, seq=0, what=f"checkpoint {number} is not signed by a key of ours")
        if one.stream != stream or one.previous != previous or one.size <= size:
            return Finding(
                stream=stream, seq=0, what=f"checkpoint {number} does not follow the one before it"
            )
        previous, size = one.digest(), one.size
    return None


def _bad(stream: str, seq: int, what: str, tree: Frontier, anchored: int) -> Verdict:
    finding = Finding(stream=stream, seq=seq, what=what)
    return Verdict(stream=stream, events=min(tree.size, seq - 1), anchored=anchored, finding=finding)
