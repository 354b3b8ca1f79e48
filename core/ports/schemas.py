"""The schema of a store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaStep:
    """One numbered step of a store's schema. checksum: SHA-256 of its text, so that an edited step is noticed."""

    number: int
    name: str
    sql: str
    checksum: str


class Schema(Protocol):
    """A store whose schema is brought forward in numbered steps, never back."""

    async def applied(self) -> Mapping[int, str]:
        """Return the checksum of every step applied, by number. Raises: Unavailable."""

    async def apply(self, step: SchemaStep) -> None:
        """Apply one step and note it. Raises: Unavailable."""
