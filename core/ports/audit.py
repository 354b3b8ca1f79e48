"""The audit trail: what was done, in an order nobody can change afterwards without being found out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from core.model.audit import AuditEvent
    from core.ports.access import Work


class AuditTrail(Protocol):
    """Written in the same transaction as what it tells of: both are there, or neither."""

    async def append(self, work: Work, event: AuditEvent) -> int:
        """Write an event down behind the last of its stream; return its seq. Raises: Unavailable."""
