"""Rows of limits, trading states and kill switches as what they mean."""

from typing import Final

import asyncpg
import msgspec

from core.adapters.postgres.order_rows import ms
from core.model.risk import KillSwitch, LimitScope, LimitSet, Restriction, StateSet, SwitchScope, TradingState

SWITCH: Final = "id, tenant, scope, target, reason, engaged_by, engaged_at, released_by, released_at"
LIMITS: Final = "scope, target, version, limits, author, set_at"
STATE: Final = "scope, target, state, version, reason, author, set_at"
NEWEST_LIMITS: Final = (
    f"select distinct on (scope, target) {LIMITS} from risk_limits where tenant = $1 {{where}}"
    " order by scope, target, version desc"
)


def limit_set_of(row: asyncpg.Record) -> LimitSet:
    return LimitSet(
        scope=LimitScope(row["scope"]),
        target=row["target"],
        version=row["version"],
        limits=msgspec.json.decode(row["limits"]),
        author=row["author"],
        set_at_ms=ms(row["set_at"]) or 0,
    )


def state_of(row: asyncpg.Record) -> StateSet:
    return StateSet(
        scope=SwitchScope(row["scope"]),
        target=row["target"],
        state=TradingState(row["state"]),
        version=row["version"],
        reason=row["reason"],
        author=row["author"],
        set_at_ms=ms(row["set_at"]) or 0,
    )


def switch_of(row: asyncpg.Record) -> KillSwitch:
    return KillSwitch(
        id=str(row["id"]),
        tenant=row["tenant"],
        scope=SwitchScope(row["scope"]),
        target=row["target"],
        reason=row["reason"],
        engaged_by=row["engaged_by"],
        engaged_at_ms=ms(row["engaged_at"]) or 0,
        released_by=row["released_by"],
        released_at_ms=ms(row["released_at"]),
    )


def restriction_of(row: asyncpg.Record) -> Restriction:
    known = row["state"] in TradingState.__members__
    return Restriction(
        tenant=row["tenant"],
        scope=SwitchScope(row["scope"]),
        target=row["target"],
        # Not one tenant's unreadable word may keep the others' switches from being enforced; nor let its orders work.
        state=TradingState(row["state"]) if known else TradingState.HALTED,
    )
