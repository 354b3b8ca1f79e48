"""A person's leave for one order that was denied for want of it."""

from dataclasses import dataclass

from core.model.orders import Order


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """order: the denied one, as it was asked; asked_by: who asked for it. used_by: the order that was sent by it.

    Times: UTC epoch milliseconds.
    """

    id: str
    order: Order
    asked_by: str
    reason: str
    granted_by: str
    granted_at_ms: int
    expires_at_ms: int
    used_by: str | None = None
    used_at_ms: int | None = None
    revoked_by: str | None = None
    revoked_at_ms: int | None = None
