"""The schema of a store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaStep:
    """One numbered step of a store's schema. sql: its text, in whatever the store understands.

    checksum: SHA-256 of its text, so that an edited step is noticed.
    """

    number: int
    name: str
    sql: str
    checksum: str


class Schema(Protocol):
    """A store whose schema is brought forward in numbered steps, never back."""

    async def applied(self) -> Mapping[int, str]:
        """Return the checksum of every step applied, by number, making room for such notes. Raises: Unavailable."""

    async def apply(self, step: SchemaStep) -> None:
        """Apply one step and note it; one that was cut off anywhere before may be applied again.

        Raises: Unavailable. Defect: the store refuses it.
        """


class LockingSchema(Schema, Protocol):
    """The schema that holds the migration lock of the house while it is open."""

    async def require_held(self) -> None:
        """Raises: Unavailable: the connection that holds the lock is gone, and the lock with it."""
