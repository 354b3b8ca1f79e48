"""Sources as their tenants keep them; as the bridge knows them they are in `core.ports.ticks`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from core.model.sources import SourceState, SourceToken
    from core.ports.access import Work


class TenantSources(Protocol):
    """A tenant's sources. Those of another tenant are not found."""

    async def page(self, tenant: str, *, after: str | None, limit: int) -> Sequence[SourceState]:
        """Return sources whose names follow `after`, by name and code point, closed ones too. Raises: Unavailable."""

    async def read(self, tenant: str, name: str) -> SourceState:
        """Raises: NotFound (code SOURCE_NOT_FOUND), Unavailable."""

    async def create(self, work: Work, label: str, title: str, token: SourceToken) -> SourceState:
        """Keep a new source, under a name of our making that begins with `label`.

        Raises: Conflict (code TOO_MANY_SOURCES), Unavailable.
        """

    async def rotate(self, work: Work, name: str, token: SourceToken) -> SourceState:
        """Let the source be written with `token` alone. Whoever showed the one before is cut off by its bridge.

        Raises: NotFound, Conflict (code SOURCE_CLOSED), Unavailable.
        """

    async def update(self, tenant: str, name: str, title: str, *, expected: str | None) -> SourceState:
        """Replace what the tenant says of it. expected: the version it must still have, None for any.

        Raises: NotFound, Conflict (code SOURCE_CLOSED or VERSION_MISMATCH), Unavailable.
        """

    async def close(self, tenant: str, name: str) -> None:
        """Let nobody write the source any more; its ticks stay. Closing it again is no error.

        Raises: NotFound, Unavailable.
        """
