"""Whether an approval holds for an order: the same order, smaller or as large, once, in time, by four eyes. Pure."""

from collections.abc import Iterator
from typing import Any, Final

from core.messages.orders import text
from core.model.approvals import Approval
from core.model.orders import Order
from core.model.risk import ApprovalSeen, RiskFacts
from core.trading.stops import Reason

NEEDED: Final = "APPROVAL_NEEDED"
SAME: Final = (
    "account",
    "symbol",
    "side",
    "type",
    "time_in_force",
    "price",
    "stop_price",
    "stop_loss",
    "take_profit",
    "expires_at_ms",
    "reduce_only",
    "position",
    "strategy",
)
"""What of an order has to be as it was approved; its volume may be smaller."""


def approval_fields(approval: Approval) -> dict[str, Any]:
    """Return an approval as it is told, and as the audit keeps it."""
    order = approval.order
    return {
        "id": approval.id,
        "order": order.id,
        "account": order.account,
        "symbol": order.symbol,
        "side": order.side,
        "type": order.type,
        "volume": text(order.volume),
        "price": text(order.price),
        "stop_price": text(order.stop_price),
        "asked_by": approval.asked_by,
        "reason": approval.reason,
        "granted_by": approval.granted_by,
        "granted_at_ms": approval.granted_at_ms,
        "expires_at_ms": approval.expires_at_ms,
        "used_by": approval.used_by,
        "used_at_ms": approval.used_at_ms,
        "revoked_by": approval.revoked_by,
        "revoked_at_ms": approval.revoked_at_ms,
    }


def held_against(order: Order, approval: Approval | None, named: str, actor: str) -> ApprovalSeen:
    """Return what a risk check is told of the approval an order names. actor: who submits it."""
    if approval is None:
        return ApprovalSeen(id=named, known=False)
    unlike = [name for name in SAME if getattr(order, name) != getattr(approval.order, name)]
    if order.volume > approval.order.volume:
        unlike.append("volume")
    return ApprovalSeen(
        id=approval.id,
        known=True,
        expires_at_ms=approval.expires_at_ms,
        used_by=approval.used_by,
        revoked_by=approval.revoked_by,
        own=approval.granted_by == actor,
        unlike=tuple(unlike),
    )


def unapproved(facts: RiskFacts) -> Iterator[Reason]:
    """Yield what keeps an order that needs one from being approved. Exactly at its end an approval still holds."""
    seen = facts.approval
    if seen is None:
        yield "APPROVAL_NEEDED", "somebody has to approve this order", {}
        return
    if not seen.known:
        yield "APPROVAL_UNKNOWN", "there is no such approval", {"approval": seen.id}
        return
    if seen.used_by is not None:
        yield "APPROVAL_USED", "another order was sent by it", {"approval": seen.id, "used_by": seen.used_by}
    if seen.revoked_by is not None:
        yield "APPROVAL_REVOKED", "it was revoked", {"approval": seen.id, "revoked_by": seen.revoked_by}
    if facts.at_ms > seen.expires_at_ms:
        numbers = {"approval": seen.id, "at_ms": facts.at_ms, "expires_at_ms": seen.expires_at_ms}
        yield "APPROVAL_EXPIRED", "its time is over", numbers
    if seen.unlike:
        differs = ", ".join(seen.unlike)
        yield "APPROVAL_MISMATCH", "another order was approved", {"approval": seen.id, "differs": differs}
    if seen.own:
        yield "APPROVAL_OWN", "whoever approves an order may not submit it", {"approval": seen.id}
