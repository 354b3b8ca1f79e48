"""Kill switches, limits and trading states over HTTP: set in one transaction with their audit, read from the ledger."""

import re
from typing import Any, Final

import msgspec
from starlette.responses import Response

from core.errors.exceptions import Forbidden, Invalid, NotFound
from core.messages.orders import text
from core.model.audit import AuditEvent
from core.model.risk import KillSwitch, LimitScope, LimitSet, RiskLimits, StateSet, SwitchScope
from core.ports.access import Work
from core.telemetry.tracing import current_traceparent
from core.trading.limits import merged, read
from gateway.authentication import require_still_valid
from gateway.bodies import parse_json
from gateway.idempotency import stored
from gateway.parameters import NoParameters, parse
from gateway.records import expected_version
from gateway.risk_shapes import (
    LimitsWish,
    StateWish,
    SwitchQuery,
    SwitchWish,
    VersionQuery,
)
from gateway.routing import Call

_TARGET: Final = re.compile(r"[^\x00-\x1f\x7f]{1,64}")
OWN: Final = "-"
"""What a path has in place of a target where the scope is the whole tenant."""


async def engage(call: Call) -> Response:
    """Engage a kill switch.

    From now on every order it covers is denied, one that waits is not sent, and one that works is taken back.
    """
    wish = parse_json(call, SwitchWish)
    scope, target = SwitchScope(wish.scope), wish.id or ""
    if scope is SwitchScope.GLOBAL:
        raise Forbidden("everybody's trading is halted by the operator alone", code="OPERATORS_ONLY")
    if (scope is SwitchScope.TENANT) != (not target):
        raise Invalid(
            "id names the account or strategy; a tenant's switch has none", code="CONTRADICTORY_BODY"
        )
    async with call.claimed.work() as work:
        await require_still_valid(call.request, call.services)
        switch = await call.services.risk.engage(
            work, scope, target, reason=wish.reason, author=_author(call)
        )
        await _audit(call, work, "kill.engaged", _switch(switch))
        response = _json(_switch(switch), 201)
        response.headers["Location"] = f"/v1/kill-switches/{switch.id}"
        await work.answer(stored(response))
    return response


async def release(call: Call) -> Response:
    """Release a kill switch. What it ended stays ended."""
    parse(call.request, NoParameters)
    async with call.services.ledger.work(call.caller.tenant) as work:
        switch = await call.services.risk.release(work, _id(call), author=_author(call))
        await _audit(call, work, "kill.released", _switch(switch))
    return _json(_switch(switch))


async def switches(call: Call) -> Response:
    """List kill switches, released ones too, the latest first."""
    query = parse(call.request, SwitchQuery)
    found = await call.services.risk.switches(call.caller.tenant, before=query.cursor, limit=query.limit + 1)
    page = found[: query.limit]
    cursor = page[-1].id if len(found) > query.limit else None
    return _json({"items": [_switch(one) for one in page], "next_cursor": cursor})


async def switch(call: Call) -> Response:
    """Show a kill switch."""
    parse(call.request, NoParameters)
    return _json(_switch(await call.services.risk.switch(call.caller.tenant, _id(call))))


async def limits(call: Call) -> Response:
    """List the limits in force: what each scope sets, and what holds where nothing is set."""
    parse(call.request, NoParameters)
    sets = await call.services.risk.limits(call.caller.tenant)
    whole = merged(one for one in sets if one.scope is LimitScope.TENANT)
    return _json({"items": [_limits(one) for one in sets], "next_cursor": None, "base": _plain(whole)})


async def limits_of(call: Call) -> Response:
    """Show what a scope sets."""
    parse(call.request, NoParameters)
    scope, target = _limit_place(call)
    found = await call.services.risk.versions(call.caller.tenant, scope, target, limit=1)
    if not found:
        raise NotFound("nothing is set here", code="RISK_LIMITS_NOT_FOUND")
    return _tagged(found[0])


async def versions(call: Call) -> Response:
    """List what a scope has ever set, the newest first."""
    query = parse(call.request, VersionQuery)
    scope, target = _limit_place(call)
    found = await call.services.risk.versions(call.caller.tenant, scope, target, limit=query.limit)
    return _json({"items": [_limits(one) for one in found], "next_cursor": None})


async def set_limits(call: Call) -> Response:
    """Set the limits of a scope: all that it sets, each time. What is left out, it sets no longer."""
    parse(call.request, NoParameters)
    scope, target = _limit_place(call)
    wish, expected = parse_json(call, LimitsWish), _expected(call)
    given = {
        name: value for name, value in msgspec.structs.asdict(wish).items() if value is not msgspec.UNSET
    }
    try:
        read(given)
    except (ValueError, msgspec.ValidationError) as e:
        raise Invalid(str(e), code="CONTRADICTORY_BODY") from e
    async with call.services.ledger.work(call.caller.tenant) as work:
        await require_still_valid(call.request, call.services)
        kept = await call.services.risk.set_limits(
            work, scope, target, given, expected=expected, author=_author(call)
        )
        await _audit(call, work, "risk.limits", {**_limits(kept), "limits": _texts(given)})
    return _tagged(kept)


async def states(call: Call) -> Response:
    """List the trading states that were set; what has none is ACTIVE."""
    parse(call.request, NoParameters)
    found = await call.services.risk.states(call.caller.tenant)
    return _json({"items": [_state(one) for one in found], "next_cursor": None})


async def set_state(call: Call) -> Response:
    """Set a trading state: ACTIVE, REDUCING (only what makes a position smaller) or HALTED."""
    parse(call.request, NoParameters)
    wish = parse_json(call, StateWish)
    scope, target = _switch_place(call)
    async with call.services.ledger.work(call.caller.tenant) as work:
        await require_still_valid(call.request, call.services)
        kept = await call.services.risk.set_state(
            work, scope, target, wish.state, reason=wish.reason, author=_author(call)
        )
        await _audit(call, work, "risk.state", _state(kept))
    return _json(_state(kept))


async def _audit(call: Call, work: Work, what: str, facts: dict[str, Any]) -> None:
    event = AuditEvent(type=what, actor=_author(call), facts=_texts(facts), trace=current_traceparent())
    await call.services.audit.append(work, event)


def _author(call: Call) -> str:
    return f"{call.caller.kind}:{call.caller.subject}"


def _id(call: Call) -> str:
    return str(call.request.path_params["id"])


def _limit_place(call: Call) -> tuple[LimitScope, str]:
    try:
        scope = LimitScope(call.request.path_params["scope"])
    except ValueError as e:
        raise NotFound(
            "limits are of a tenant, an account, a strategy or a symbol", code="NO_SUCH_SCOPE"
        ) from e
    return scope, _target(call, whole=scope is LimitScope.TENANT)


def _switch_place(call: Call) -> tuple[SwitchScope, str]:
    try:
        scope = SwitchScope(call.request.path_params["scope"])
    except ValueError as e:
        raise NotFound("states are of a tenant, an account or a strategy", code="NO_SUCH_SCOPE") from e
    if scope is SwitchScope.GLOBAL:
        raise NotFound("states are of a tenant, an account or a strategy", code="NO_SUCH_SCOPE")
    return scope, _target(call, whole=scope is SwitchScope.TENANT)


def _target(call: Call, *, whole: bool) -> str:
    target: str = call.request.path_params["id"]
    if whole != (target == OWN) or not _TARGET.fullmatch(target):
        raise NotFound(f"a tenant's own are at {OWN!r}, all others at their id", code="NO_SUCH_SCOPE")
    return "" if whole else target


def _expected(call: Call) -> int | None:
    tag = expected_version(call)
    if tag is None:
        return None
    return int(tag) if tag.isdigit() and len(tag) < 18 else -1


def _switch(switch: KillSwitch) -> dict[str, Any]:
    return {
        "id": switch.id,
        "scope": switch.scope,
        "target": switch.target or None,
        "engaged": switch.released_at_ms is None,
        "reason": switch.reason,
        "engaged_by": switch.engaged_by,
        "engaged_at_ms": switch.engaged_at_ms,
        "released_by": switch.released_by,
        "released_at_ms": switch.released_at_ms,
    }


def _limits(one: LimitSet) -> dict[str, Any]:
    return {
        "scope": one.scope,
        "target": one.target or None,
        "version": one.version,
        "limits": one.limits,
        "author": one.author,
        "set_at_ms": one.set_at_ms,
    }


def _state(one: StateSet) -> dict[str, Any]:
    return {
        "scope": one.scope,
        "target": one.target or None,
        "state": one.state,
        "version": one.version,
        "reason": one.reason,
        "author": one.author,
        "set_at_ms": one.set_at_ms,
    }


def _plain(limits: RiskLimits) -> dict[str, Any]:
    fields = {name: getattr(limits, name) for name in RiskLimits.__dataclass_fields__ if name != "version"}
    return {
        name: sorted(value)
        if isinstance(value, frozenset)
        else value
        if value is None or isinstance(value, bool | int)
        else text(value)
        for name, value in fields.items()
    }


def _texts(facts: dict[str, Any]) -> dict[str, Any]:
    """Return facts as the audit takes them: no floats."""
    return {name: str(value) if isinstance(value, float) else value for name, value in facts.items()}


def _tagged(one: LimitSet) -> Response:
    response = _json(_limits(one))
    response.headers["ETag"] = f'"{one.version}"'
    return response


def _json(body: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")
