"""Kill switches, limits and trading states as plain values: for answers, and for the audit."""

from typing import Any

from core.messages.orders import text
from core.model.risk import KillSwitch, LimitSet, RiskLimits, StateSet


def switch_fields(switch: KillSwitch) -> dict[str, Any]:
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


def limit_fields(one: LimitSet) -> dict[str, Any]:
    return {
        "scope": one.scope,
        "target": one.target or None,
        "version": one.version,
        "limits": one.limits,
        "author": one.author,
        "set_at_ms": one.set_at_ms,
    }


def state_fields(one: StateSet) -> dict[str, Any]:
    return {
        "scope": one.scope,
        "target": one.target or None,
        "state": one.state,
        "version": one.version,
        "reason": one.reason,
        "author": one.author,
        "set_at_ms": one.set_at_ms,
    }


def plain_limits(limits: RiskLimits) -> dict[str, Any]:
    fields = {name: getattr(limits, name) for name in RiskLimits.__dataclass_fields__ if name != "version"}
    return {
        name: sorted(value)
        if isinstance(value, frozenset)
        else value
        if value is None or isinstance(value, bool | int)
        else text(value)
        for name, value in fields.items()
    }


def texts(facts: dict[str, Any]) -> dict[str, Any]:
    """Return facts as the audit takes them: no floats."""
    return {name: str(value) if isinstance(value, float) else value for name, value in facts.items()}
