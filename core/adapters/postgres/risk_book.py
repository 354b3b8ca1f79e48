"""What holds for an order, read from the ledger within the order's own transaction.

Who judges an order holds a lock of its tenant, and one of everybody's, in share; who engages a switch or sets
something holds it alone. So each order is judged and kept wholly before such a change, or wholly behind it. These
locks come before an account's, always: a change that waits stands between two orders that wait for each other
otherwise, and only PostgreSQL's search for deadlocks, a second later, lets the three of them go on.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import asyncpg

from core.adapters.postgres.order_rows import ms
from core.adapters.postgres.risk_rows import NEWEST_LIMITS, limit_set_of
from core.adapters.postgres.work import HOLD_RISK, PostgresWork
from core.errors.exceptions import Corrupt
from core.model.risk import Halted, RiskRules, TradingState
from core.trading.limits import merged

SHARE: Final = HOLD_RISK.format(tenant="$1")
ALONE: Final = "select pg_advisory_xact_lock(hashtextextended('tickgate.risk/' || $1, 0))"
"""Of one tenant, or of everybody where it is empty."""
_WORST: Final = (TradingState.HALTED, TradingState.REDUCING, TradingState.ACTIVE)
assert set(_WORST) == set(TradingState)
_COVERS: Final = (
    "(scope in ('global', 'tenant') or scope = 'account' and target = $2"
    " or scope = 'strategy' and target = $3)"
)
_STOPS: Final = (
    "select distinct null::text as state, scope, target, null::bigint as version, null::jsonb as limits,"
    " null::text as author, null::timestamptz as set_at from kill_switches where tenant in ($1, '')"
    f" and released_at is null and {_COVERS}"
    " union all select state, scope, target, null, null, null, null from trading_states where tenant = $1"
    f" and {_COVERS}"
)
"""One statement, because each is a round trip under the order's locks. A switch has no state."""
_HALTED: Final = (
    f"select clock_timestamp() as now, stops.* from (select) one left join ({_STOPS}) stops on true"
    " order by scope, target"
)
_LIMITS: Final = NEWEST_LIMITS.format(
    where="and (scope = 'tenant' or scope = 'account' and target = $2 or scope = 'strategy' and target = $3"
    " or scope = 'symbol' and target = $4)"
)
_RULES: Final = (
    f"{_STOPS} union all select 'LIMITS', scope, target, version, limits, author, set_at from ({_LIMITS}) l"
    " order by scope, target"
)


class PostgresRiskBook:
    """The `RiskBook` port on PostgreSQL."""

    async def hold(self, work: PostgresWork) -> None:
        if not work.holds_risk:
            await work.connection.execute(SHARE, work.tenant)
            work.holds_risk = True

    async def rules(self, work: PostgresWork, *, account: str, strategy: str, symbol: str) -> RiskRules:
        await self.hold(work)
        # Behind the locks, in a statement of its own: it sees whatever was set before they were had.
        rows = await work.connection.fetch(_RULES, work.tenant, account, strategy, symbol)
        halts, states = _stops(row for row in rows if row["version"] is None)
        try:
            limits = merged(limit_set_of(row) for row in rows if row["version"] is not None)
        except ValueError as e:
            raise Corrupt("risk limits cannot be read", code="RISK_LIMITS_UNREADABLE", detail=str(e)) from e
        return RiskRules(limits=limits, state=_worst(state for _, state in states), halts=halts)

    async def halted(self, work: PostgresWork, *, account: str, strategy: str) -> Halted:
        await self.hold(work)
        rows = await work.connection.fetch(_HALTED, work.tenant, account, strategy)
        halts, states = _stops(row for row in rows if row["scope"] is not None)
        halted = (name for name, state in states if state is TradingState.HALTED)
        reducing = tuple(name for name, state in states if state is TradingState.REDUCING)
        return Halted(at_ms=ms(rows[0]["now"]) or 0, by=(*halts, *halted), reducing=reducing)


def _stops(
    rows: Iterable[asyncpg.Record],
) -> tuple[tuple[str, ...], Sequence[tuple[str, TradingState]]]:
    """Return the names of the switches that hold, and the states that are set, by name."""
    halts: list[str] = []
    states: list[tuple[str, TradingState]] = []
    for row in rows:
        name = _name(row["scope"], row["target"])
        if row["state"] is None:
            halts.append(name)
            continue
        try:
            states.append((name, TradingState(row["state"])))
        except ValueError as e:
            raise Corrupt(
                "a trading state cannot be read", code="RISK_STATE_UNREADABLE", detail=str(e)
            ) from e
    return tuple(halts), states


def _worst(states: Iterable[TradingState]) -> TradingState:
    return min(states, key=_WORST.index, default=TradingState.ACTIVE)


def _name(scope: str, target: str) -> str:
    return f"{scope} {target}" if target else scope
