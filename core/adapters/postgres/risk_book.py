"""What holds for an order, read from the ledger within the order's own transaction.

Who judges an order holds a lock of its tenant, and one of everybody's, in share; who engages a switch or sets
something holds it alone. So each order is judged and kept wholly before such a change, or wholly behind it. These
locks come before an account's, always: a change that waits stands between two orders that wait for each other
otherwise, and only PostgreSQL's search for deadlocks, a second later, lets the three of them go on.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from core.adapters.postgres.risk_rows import NEWEST_LIMITS, limit_set_of
from core.adapters.postgres.work import PostgresWork
from core.errors.exceptions import Corrupt
from core.model.risk import RiskRules, TradingState
from core.trading.limits import merged

SHARE: Final = (
    "select pg_advisory_xact_lock_shared(hashtextextended('tickgate.risk/', 0)),"
    " pg_advisory_xact_lock_shared(hashtextextended('tickgate.risk/' || $1, 0))"
)
ALONE: Final = "select pg_advisory_xact_lock(hashtextextended('tickgate.risk/' || $1, 0))"
"""Of one tenant, or of everybody where it is empty."""
_WORST: Final = (TradingState.HALTED, TradingState.REDUCING, TradingState.ACTIVE)
assert set(_WORST) == set(TradingState)
_COVERS: Final = (
    "(scope in ('global', 'tenant') or scope = 'account' and target = $2"
    " or scope = 'strategy' and target = $3)"
)
_SWITCHES: Final = (
    "select distinct scope, target from kill_switches where tenant in ($1, '') and released_at is null"
    f" and {_COVERS} order by scope, target"
)
_STATES: Final = f"select scope, target, state from trading_states where tenant = $1 and {_COVERS}"
_LIMITS: Final = NEWEST_LIMITS.format(
    where="and (scope = 'tenant' or scope = 'account' and target = $2 or scope = 'strategy' and target = $3"
    " or scope = 'symbol' and target = $4)"
)


class PostgresRiskBook:
    """The `RiskBook` port on PostgreSQL."""

    async def hold(self, work: PostgresWork) -> None:
        await work.connection.execute(SHARE, work.tenant)

    async def rules(self, work: PostgresWork, *, account: str, strategy: str, symbol: str) -> RiskRules:
        halts, states = await self._stops(work, account, strategy)
        rows = await work.connection.fetch(_LIMITS, work.tenant, account, strategy, symbol)
        try:
            limits = merged(map(limit_set_of, rows))
        except ValueError as e:
            raise Corrupt("risk limits cannot be read", code="RISK_LIMITS_UNREADABLE", detail=str(e)) from e
        return RiskRules(limits=limits, state=_worst(state for _, state in states), halts=halts)

    async def halted(self, work: PostgresWork, *, account: str, strategy: str) -> tuple[str, ...]:
        halts, states = await self._stops(work, account, strategy)
        return (*halts, *(name for name, state in states if state is TradingState.HALTED))

    async def _stops(
        self, work: PostgresWork, account: str, strategy: str
    ) -> tuple[tuple[str, ...], Sequence[tuple[str, TradingState]]]:
        """Return the names of the switches that hold, and the states that are set, by name."""
        await self.hold(work)
        switches = await work.connection.fetch(_SWITCHES, work.tenant, account, strategy)
        rows = await work.connection.fetch(_STATES, work.tenant, account, strategy)
        try:
            states = [(_name(row["scope"], row["target"]), TradingState(row["state"])) for row in rows]
        except ValueError as e:
            raise Corrupt(
                "a trading state cannot be read", code="RISK_STATE_UNREADABLE", detail=str(e)
            ) from e
        return tuple(_name(row["scope"], row["target"]) for row in switches), states


def _worst(states: Iterable[TradingState]) -> TradingState:
    return min(states, key=_WORST.index, default=TradingState.ACTIVE)


def _name(scope: str, target: str) -> str:
    return f"{scope} {target}" if target else scope
