"""The audit trail: what was done, in an order nobody can change afterwards without being found out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from core.model.audit import AuditEntry, AuditEvent, KeptCheckpoint
    from core.ports.access import Work


class AuditTrail(Protocol):
    """Written in the same transaction as what it tells of: both are there, or neither."""

    async def append(self, work: Work, event: AuditEvent) -> None:
        """Have an event written behind the last of its stream when the work ends. Raises: Unavailable, then."""

    def tells(self, moved: Callable[[str], None]) -> None:
        """Have `moved` called with the tenant after each commit that has appended to its trail. It must not wait."""

    async def events(self, tenant: str, *, after: int, limit: int, order: str = "") -> Sequence[AuditEntry]:
        """Return a tenant's events behind the seq `after`, in their order. order: only those of this order.

        Raises: Unavailable.
        """

    async def newest(self, tenant: str) -> int:
        """Return the seq of a tenant's last event, 0 where there is none. Raises: Unavailable."""


class AuditArchive(Protocol):
    """Every stream of the trail, for who seals and verifies it; a stream has its tenant's name."""

    async def streams(self) -> Sequence[tuple[str, int]]:
        """Return every stream and the seq of its last event. Raises: Unavailable."""

    async def entries(self, stream: str, *, after: int, limit: int) -> Sequence[AuditEntry]:
        """Return events behind `after`, in their order. Raises: Unavailable."""

    async def newest_checkpoint(self, stream: str) -> KeptCheckpoint | None:
        """Return a stream's last checkpoint. Raises: Unavailable."""

    async def keep_checkpoint(self, kept: KeptCheckpoint) -> bool:
        """Keep a checkpoint, unless somebody has kept one since. Raises: Unavailable."""

    async def unanchored(self) -> Sequence[KeptCheckpoint]:
        """Return the checkpoints that are not outside yet, in their order. Raises: Unavailable."""

    async def anchored(self, kept: KeptCheckpoint) -> None:
        """Note that a checkpoint is outside. Raises: Unavailable."""
