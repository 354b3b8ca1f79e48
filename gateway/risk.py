"""Kill switches, limits and trading states over HTTP: set in one transaction with their audit, read from the ledger."""

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from starlette.responses import Response

from core.errors.exceptions import Forbidden, Invalid, NotFound
from core.model.audit import AuditEvent
from core.model.risk import LimitScope, LimitSet, StateSet, SwitchScope
from core.ports.access import Work
from core.ports.risk import Place
from core.telemetry.tracing import current_traceparent
from core.trading.limits import merged, read
from gateway.authentication import require_still_valid
from gateway.bodies import parse_json
from gateway.idempotency import stored
from gateway.parameters import NoParameters, parse
from gateway.records import expected_version
from gateway.risk_answers import limit_fields, plain_limits, state_fields, switch_fields, texts
from gateway.risk_shapes import (
    LimitsWish,
    PlaceQuery,
    StateWish,
    SwitchQuery,
    SwitchWish,
    TargetQuery,
    VersionQuery,
)
from gateway.routing import Call

_TARGET: Final = re.compile(r"[^\x00-\x1f\x7f]{1,64}")
OWN: Final = "-"
"""What a path has in place of a target where the scope is the whole tenant, or the query names the target."""


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
    async with call.work() as work:
        await require_still_valid(call.request, call.services)
        switch = await call.services.risk.engage(
            work, scope, target, reason=wish.reason, author=call.caller.actor
        )
        await _audit(call, work, "kill.engaged", switch_fields(switch))
        response = _json(switch_fields(switch), 201)
        response.headers["Location"] = f"/v1/kill-switches/{switch.id}"
        await work.answer(stored(response))
    return response


async def release(call: Call) -> Response:
    """Release a kill switch. What it ended stays ended; one that is released stays as it was released."""
    parse(call.request, NoParameters)
    async with call.services.ledger.work(call.caller.tenant) as work:
        await require_still_valid(call.request, call.services)
        released = await call.services.risk.release(work, _id(call), author=call.caller.actor)
        if released is not None:
            await _audit(call, work, "kill.released", switch_fields(released))
    return _json(switch_fields(released or await call.services.risk.switch(call.caller.tenant, _id(call))))


async def switches(call: Call) -> Response:
    """List kill switches, released ones too, the latest first."""
    query = parse(call.request, SwitchQuery)
    found = await call.services.risk.switches(call.caller.tenant, before=query.cursor, limit=query.limit + 1)
    page = found[: query.limit]
    cursor = page[-1].id if len(found) > query.limit else None
    return _json({"items": [switch_fields(one) for one in page], "next_cursor": cursor})


async def switch(call: Call) -> Response:
    """Show a kill switch."""
    parse(call.request, NoParameters)
    return _json(switch_fields(await call.services.risk.switch(call.caller.tenant, _id(call))))


async def limits(call: Call) -> Response:
    """List the limits in force: what each scope sets, and what holds where nothing is set."""
    query, risk = parse(call.request, PlaceQuery), call.services.risk
    own = await risk.versions(call.caller.tenant, LimitScope.TENANT, "", before=None, limit=1)
    found = await risk.limits(call.caller.tenant, after=_after(query), limit=query.limit + 1)
    page = found[: query.limit]
    base = plain_limits(merged(own))
    return _json(
        {"items": [limit_fields(one) for one in page], "next_cursor": _cursor(found, page), "base": base}
    )


async def limits_of(call: Call) -> Response:
    """Show what a scope sets."""
    scope, target = _limit_place(call, parse(call.request, TargetQuery).of)
    found = await call.services.risk.versions(call.caller.tenant, scope, target, before=None, limit=1)
    if not found:
        raise NotFound("nothing is set here", code="RISK_LIMITS_NOT_FOUND")
    return _tagged(found[0])


async def versions(call: Call) -> Response:
    """List what a scope has ever set, the newest first."""
    query = parse(call.request, VersionQuery)
    scope, target = _limit_place(call, query.of)
    before = None if query.cursor is None else int(query.cursor)
    found = await call.services.risk.versions(
        call.caller.tenant, scope, target, before=before, limit=query.limit + 1
    )
    page = found[: query.limit]
    cursor = str(page[-1].version) if len(found) > query.limit else None
    return _json({"items": [limit_fields(one) for one in page], "next_cursor": cursor})


async def set_limits(call: Call) -> Response:
    """Set the limits of a scope: all that it sets, each time. What is left out, it sets no longer."""
    scope, target = _limit_place(call, parse(call.request, TargetQuery).of)
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
            work, scope, target, given, expected=expected, author=call.caller.actor
        )
        await _audit(call, work, "risk.limits", {**limit_fields(kept), "limits": texts(given)})
    return _tagged(kept)


async def states(call: Call) -> Response:
    """List the trading states that were set; what has none is ACTIVE."""
    query = parse(call.request, PlaceQuery)
    found = await call.services.risk.states(call.caller.tenant, after=_after(query), limit=query.limit + 1)
    page = found[: query.limit]
    return _json({"items": [state_fields(one) for one in page], "next_cursor": _cursor(found, page)})


async def state_of(call: Call) -> Response:
    """Show the trading state that was set for a scope."""
    scope, target = _switch_place(call, parse(call.request, TargetQuery).of)
    return _json(state_fields(await call.services.risk.state(call.caller.tenant, scope, target)))


async def set_state(call: Call) -> Response:
    """Set a trading state: ACTIVE, REDUCING (only what makes a position smaller) or HALTED."""
    scope, target = _switch_place(call, parse(call.request, TargetQuery).of)
    wish = parse_json(call, StateWish)
    async with call.services.ledger.work(call.caller.tenant) as work:
        await require_still_valid(call.request, call.services)
        kept = await call.services.risk.set_state(
            work, scope, target, wish.state, reason=wish.reason, author=call.caller.actor
        )
        await _audit(call, work, "risk.state", state_fields(kept))
    return _json(state_fields(kept))


async def _audit(call: Call, work: Work, what: str, facts: dict[str, Any]) -> None:
    event = AuditEvent(type=what, actor=call.caller.actor, facts=texts(facts), trace=current_traceparent())
    await call.services.audit.append(work, event)


def _id(call: Call) -> str:
    return str(call.request.path_params["id"])


def _limit_place(call: Call, of: str | None) -> tuple[LimitScope, str]:
    try:
        scope = LimitScope(call.request.path_params["scope"])
    except ValueError as e:
        raise NotFound(
            "limits are of a tenant, an account, a strategy or a symbol", code="NO_SUCH_SCOPE"
        ) from e
    return scope, _target(call, of, whole=scope is LimitScope.TENANT)


def _switch_place(call: Call, of: str | None) -> tuple[SwitchScope, str]:
    try:
        scope = SwitchScope(call.request.path_params["scope"])
    except ValueError as e:
        raise NotFound("states are of a tenant, an account or a strategy", code="NO_SUCH_SCOPE") from e
    if scope is SwitchScope.GLOBAL:
        raise NotFound("states are of a tenant, an account or a strategy", code="NO_SUCH_SCOPE")
    return scope, _target(call, of, whole=scope is SwitchScope.TENANT)


def _target(call: Call, of: str | None, *, whole: bool) -> str:
    named: str = call.request.path_params["id"]
    target = of if named == OWN and of is not None and not whole else named
    if (whole and (named != OWN or of is not None)) or (not whole and (named == OWN) != (of is not None)):
        raise NotFound(f"a tenant's own are at {OWN!r}, all others at their id", code="NO_SUCH_SCOPE")
    if not _TARGET.fullmatch(target):
        raise NotFound("nothing can have this name", code="NO_SUCH_SCOPE")
    return "" if whole else target


def _after(query: PlaceQuery) -> Place | None:
    if query.cursor is None:
        return None
    scope, _, target = query.cursor.partition("/")
    return scope, target


def _cursor(found: Sequence[LimitSet | StateSet], page: Sequence[LimitSet | StateSet]) -> str | None:
    """Return what leads behind the page, if something is there."""
    return f"{page[-1].scope}/{page[-1].target}" if len(found) > len(page) else None


def _expected(call: Call) -> int | None:
    tag = expected_version(call)
    if tag is None:
        return None
    return int(tag) if tag.isdigit() and len(tag) < 18 else -1


def _tagged(one: LimitSet) -> Response:
    response = _json(limit_fields(one))
    response.headers["ETag"] = f'"{one.version}"'
    return response


def _json(body: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")
