"""Limits of several scopes as one set. Pure. A tenant's replace the defaults; every narrower scope only tightens."""

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec

from core.model.risk import LimitScope, LimitSet, RiskLimits

_LARGER: Final[Callable[[Any, Any], Any]] = max
_SMALLER: Final[Callable[[Any, Any], Any]] = min


def _both(mine: frozenset[str] | None, theirs: frozenset[str] | None) -> frozenset[str] | None:
    if mine is None or theirs is None:
        return theirs if mine is None else mine
    return mine & theirs


STRICTER: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "submits_per_minute_max": _SMALLER,
    "duplicate_window_ms": _LARGER,
    "volume_max": _SMALLER,
    "notional_max": _SMALLER,
    "account_notional_max": _SMALLER,
    "position_max": _SMALLER,
    "collar_share": _SMALLER,
    "quote_age_ms_max": _SMALLER,
    "spread_share_max": _SMALLER,
    "margin_share_max": _SMALLER,
    "daily_loss_max": _SMALLER,
    "drawdown_share_max": _SMALLER,
    "consecutive_rejects_max": _SMALLER,
    "restricted": frozenset.union,
    "symbols": _both,
    "approval_needed": lambda mine, theirs: mine or theirs,
}
"""Of every limit, which of two values allows less."""
assert set(STRICTER) == set(RiskLimits.__dataclass_fields__) - {"version"}, "every limit can be made stricter"


def merged(sets: Iterable[LimitSet]) -> RiskLimits:
    """Return what holds where all of `sets` do. Raises: ValueError: a limit is none."""
    values = {name: getattr(RiskLimits(), name) for name in STRICTER}
    ordered = sorted(sets, key=lambda one: one.scope is not LimitScope.TENANT)
    version = 0
    for one in ordered:
        version = max(version, one.version)
        for name, value in read(one.limits).items():
            values[name] = value if one.scope is LimitScope.TENANT else STRICTER[name](values[name], value)
    return RiskLimits(version=version, **values)


def read(limits: Mapping[str, Any]) -> dict[str, Any]:
    """Return limits as they were written. Raises: ValueError: a limit is unknown or makes no sense."""
    if unknown := msgspec.convert(limits, dict[str, Any]).keys() - STRICTER.keys():
        raise ValueError(f"there is no limit {', '.join(sorted(unknown))}")
    whole = msgspec.convert(dict(limits), RiskLimits, strict=False)
    found = {name: getattr(whole, name) for name in limits}
    for name, value in found.items():
        if isinstance(value, Decimal) and not (value.is_finite() and value >= 0):
            raise ValueError(f"{name} is a number from 0 on")
        if type(value) is int and value < 0:
            raise ValueError(f"{name} is a number from 0 on")
    return found
