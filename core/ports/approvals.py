"""Approvals: granted by one person, used up by one order of somebody else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.model.approvals import Approval
    from core.ports.access import Work


class Approvals(Protocol):
    """Where approvals are kept. What was granted stays listed, whatever became of it."""

    async def grant(
        self, work: Work, order_id: str, *, author: str, reason: str, valid_for_ms: int
    ) -> Approval:
        """Approve a denied order.

        Raises: NotFound (code ORDER_NOT_FOUND), Conflict (code APPROVAL_NOT_NEEDED): it was not denied for want of one;
        Forbidden (code APPROVAL_OWN): its author asks for approval of an own order; Unavailable.
        """

    async def locked(self, work: Work, approval_id: str) -> Approval | None:
        """Return an approval that nobody else can use or revoke until the work ends; None where there is none.

        Raises: Unavailable.
        """

    async def use(self, work: Work, approval: Approval, order_id: str) -> Approval:
        """Use up a locked approval. Raises: Defect: it was used or revoked before; Unavailable."""

    async def revoke(self, work: Work, approval_id: str, *, author: str) -> Approval | None:
        """Revoke an approval and return it; None where that was done before.

        Raises: NotFound (code APPROVAL_NOT_FOUND), Conflict (code APPROVAL_USED), Unavailable.
        """

    async def approval(self, tenant: str, approval_id: str) -> Approval:
        """Return one. Raises: NotFound (code APPROVAL_NOT_FOUND), Unavailable."""

    async def approvals(self, tenant: str, *, before: str | None, limit: int) -> Sequence[Approval]:
        """Return a tenant's, the latest first. Raises: Unavailable."""
