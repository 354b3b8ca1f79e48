"""Approvals over HTTP: granted and revoked in one transaction with their audit; an order uses one up as it is kept."""

import re
from typing import Any, Final

import msgspec
from starlette.responses import Response

from core.errors.exceptions import NotFound
from core.model.approvals import Approval
from core.model.audit import AuditEvent
from core.ports.access import Work
from core.telemetry.tracing import current_traceparent
from core.trading.approving import approval_fields
from gateway.approval_shapes import ApprovalQuery, ApprovalWish
from gateway.authentication import require_still_valid
from gateway.bodies import parse_json
from gateway.idempotency import stored
from gateway.order_shapes import APPROVAL_PATTERN
from gateway.parameters import NoParameters, parse
from gateway.routing import Call

_ID: Final = re.compile(APPROVAL_PATTERN)


async def grant(call: Call) -> Response:
    """Approve one denied order.

    Whoever asked for it submits it again, no larger, and names the approval; it is good once. Nobody approves what they
    have submitted, and nobody submits what they have approved.
    """
    wish = parse_json(call, ApprovalWish)
    async with call.work() as work:
        await require_still_valid(call.request, call.services)
        approval = await call.services.approvals.grant(
            work, wish.order, author=call.caller.actor, reason=wish.reason, valid_for_ms=wish.valid_for_ms
        )
        await _audit(call, work, "approval.granted", approval)
        response = _json(approval_fields(approval), 201)
        response.headers["Location"] = f"/v1/approvals/{approval.id}"
        await work.answer(stored(response))
    return response


async def revoke(call: Call) -> Response:
    """Revoke an approval that was not used. One that is revoked stays as it was revoked."""
    parse(call.request, NoParameters)
    async with call.services.ledger.work(call.caller.tenant) as work:
        await require_still_valid(call.request, call.services)
        revoked = await call.services.approvals.revoke(work, _id(call), author=call.caller.actor)
        if revoked is not None:
            await _audit(call, work, "approval.revoked", revoked)
    found = revoked or await call.services.approvals.approval(call.caller.tenant, _id(call))
    return _json(approval_fields(found))


async def listed(call: Call) -> Response:
    """List approvals, those that are over too, the latest first."""
    query, approvals = parse(call.request, ApprovalQuery), call.services.approvals
    found = await approvals.approvals(call.caller.tenant, before=query.cursor, limit=query.limit + 1)
    page = found[: query.limit]
    cursor = page[-1].id if len(found) > query.limit else None
    return _json({"items": [approval_fields(one) for one in page], "next_cursor": cursor})


async def one(call: Call) -> Response:
    """Show an approval."""
    parse(call.request, NoParameters)
    return _json(approval_fields(await call.services.approvals.approval(call.caller.tenant, _id(call))))


async def _audit(call: Call, work: Work, what: str, approval: Approval) -> None:
    event = AuditEvent(
        type=what,
        actor=call.caller.actor,
        account=approval.order.account,
        order=approval.order.id,
        symbol=approval.order.symbol,
        strategy=approval.order.strategy,
        facts=approval_fields(approval),
        trace=current_traceparent(),
    )
    await call.services.audit.append(work, event)


def _id(call: Call) -> str:
    approval_id: str = call.request.path_params["id"]
    if not _ID.fullmatch(approval_id):
        raise NotFound("no approval can have this id", code="APPROVAL_NOT_FOUND")
    return approval_id


def _json(body: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")
