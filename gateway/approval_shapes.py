"""The shapes of approvals on the wire."""

from typing import Annotated, Final

import msgspec

from core.messages.message import Message
from core.messages.orders import OrderId
from core.messages.records import PAGE_DEFAULT, PageLimit
from core.model.orders import OrderType, Side
from gateway import answers
from gateway.order_shapes import ApprovalId, DecimalText

VALID_FOR_MS: Final = 300_000
VALID_FOR_MS_MAX: Final = 86_400_000


class ApprovalWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An order denied with APPROVAL_NEEDED. valid_for_ms: so long it may be submitted again; 5 minutes unless told."""

    order: OrderId
    valid_for_ms: Annotated[int, msgspec.Meta(ge=1, le=VALID_FOR_MS_MAX)] = VALID_FOR_MS
    reason: Annotated[
        str,
        msgspec.Meta(description="Why; for whoever asks later.", max_length=500, pattern=r"^[^\x00]*$"),
    ] = ""


class ApprovalAnswer(msgspec.Struct, kw_only=True):
    """An approval, of what, and what became of it."""

    id: ApprovalId
    order: Annotated[OrderId, msgspec.Meta(description="The order that was denied.")]
    account: str
    symbol: str
    side: Side
    type: OrderType
    volume: Annotated[DecimalText, msgspec.Meta(description="At most.")]
    price: DecimalText | None
    stop_price: DecimalText | None
    asked_by: str
    reason: str
    granted_by: str
    granted_at_ms: answers.EpochMs
    expires_at_ms: answers.EpochMs
    used_by: Annotated[str | None, msgspec.Meta(description="The order that was sent by it.")]
    used_at_ms: answers.EpochMs | None
    revoked_by: str | None
    revoked_at_ms: answers.EpochMs | None


class ApprovalPage(msgspec.Struct, kw_only=True):
    """A page of approvals, the latest first."""

    items: list[ApprovalAnswer]
    next_cursor: answers.NextCursor


class ApprovalQuery(Message, frozen=True, kw_only=True):
    """One page of approvals."""

    cursor: ApprovalId | None = None
    limit: PageLimit = PAGE_DEFAULT
