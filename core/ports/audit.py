"""The audit trail: what was done, in an order nobody can change afterwards without being found out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.model.audit import AuditEntry, AuditEvent
    from core.ports.access import Work


class AuditTrail(Protocol):
    """Written in the same transaction as what it tells of: both are there, or neither."""

    async def append(self, work: Work, event: AuditEvent) -> int:
        """Write an event down behind the last of its stream; return its seq. Raises: Unavailable."""

    async def events(self, tenant: str, *, after: int, limit: int, order: str = "") -> Sequence[AuditEntry]:
        """Return a tenant's events behind the seq `after`, in their order. order: only those of this order.

        Raises: Unavailable.
        """

    async def newest(self, tenant: str) -> int:
        """Return the seq of a tenant's last event, 0 where there is none. Raises: Unavailable."""
