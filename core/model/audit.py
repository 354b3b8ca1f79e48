"""What is written down for good: who did what, with the numbers it was decided by."""

from collections.abc import Mapping
from dataclasses import dataclass, field

AuditValue = str | int | bool | None | list["AuditValue"] | Mapping[str, "AuditValue"]
"""Plain values with one way to write them. Decimals are text; there are no floats, which are written many ways."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One thing that happened. type: a dotted word; actor: who did it, by kind and subject; trace: its traceparent."""

    type: str
    actor: str
    account: str = ""
    order: str = ""
    symbol: str = ""
    strategy: str = ""
    facts: Mapping[str, AuditValue] = field(default_factory=dict)
    trace: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """An event at its place. event: as it was hashed; hash: of it and of all before it; the rest is for finding it."""

    seq: int
    type: str
    account: str
    order: str
    event: bytes
    hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptCheckpoint:
    """A checkpoint as the ledger keeps it. text: its JSON; head: hash of its last event; roots: the tree's frontier;
    after: the size of the one it follows.
    """

    stream: str
    size: int
    text: bytes
    head: bytes
    roots: tuple[bytes, ...]
    after: int = 0
