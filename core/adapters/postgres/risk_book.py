"""Limits, trading states and kill switches in the ledger.

Who judges an order holds a lock of its tenant, and one of everybody's, in share; who engages a switch or sets
something holds it alone. So each order is judged and kept wholly before such a change, or wholly behind it. These
locks come before an account's, always: a change that waits stands between two orders that wait for each other
otherwise, and only PostgreSQL's search for deadlocks, a second later, lets the three of them go on.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec

from core.adapters.postgres.order_rows import json_of, ms
from core.adapters.postgres.pool import Postgres
from core.adapters.postgres.work import PostgresWork
from core.errors.exceptions import Conflict, Corrupt, Forbidden, NotFound
from core.model.risk import (
    OPERATORS,
    KillSwitch,
    LimitScope,
    LimitSet,
    RiskRules,
    StateSet,
    SwitchScope,
    TradingState,
)
from core.settings import Settings
from core.trading.limits import merged

EVERYBODY: Final = ""
_SHARE: Final = (
    "select pg_advisory_xact_lock_shared(hashtextextended('tickgate.risk/', 0)),"
    " pg_advisory_xact_lock_shared(hashtextextended('tickgate.risk/' || $1, 0))"
)
_ALONE: Final = "select pg_advisory_xact_lock(hashtextextended('tickgate.risk/' || $1, 0))"
_WORST: Final = (TradingState.HALTED, TradingState.REDUCING, TradingState.ACTIVE)
_SWITCH: Final = "id, tenant, scope, target, reason, engaged_by, engaged_at, released_by, released_at"
_COVERS: Final = (
    "(scope in ('global', 'tenant') or scope = 'account' and target = $2"
    " or scope = 'strategy' and target = $3)"
)
_SWITCHES: Final = (
    "select distinct scope, target from kill_switches where tenant in ($1, '') and released_at is null"
    f" and {_COVERS} order by scope, target"
)
_STATES: Final = f"select scope, target, state from trading_states where tenant = $1 and {_COVERS}"
_NEWEST: Final = (
    "select distinct on (scope, target) scope, target, version, limits, author, set_at from risk_limits"
    " where tenant = $1 {where} order by scope, target, version desc"
)
_LIMITS: Final = _NEWEST.format(
    where="and (scope = 'tenant' or scope = 'account' and target = $2 or scope = 'strategy' and target = $3"
    " or scope = 'symbol' and target = $4)"
)


class PostgresRiskBook:
    """The `RiskDesk` port on PostgreSQL."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def hold(self, work: PostgresWork) -> None:
        await work.connection.execute(_SHARE, work.tenant)

    async def rules(self, work: PostgresWork, *, account: str, strategy: str, symbol: str) -> RiskRules:
        halts, states = await self._stops(work, account, strategy)
        rows = await work.connection.fetch(_LIMITS, work.tenant, account, strategy, symbol)
        try:
            limits = merged(map(_limit_set, rows))
        except ValueError as e:
            raise Corrupt("risk limits cannot be read", code="RISK_LIMITS_UNREADABLE", detail=str(e)) from e
        return RiskRules(limits=limits, state=_worst(state for _, state in states), halts=halts)

    async def halted(self, work: PostgresWork, *, account: str, strategy: str) -> tuple[str, ...]:
        halts, states = await self._stops(work, account, strategy)
        return (*halts, *(name for name, state in states if state is TradingState.HALTED))

    async def engage(
        self, work: PostgresWork, scope: SwitchScope, target: str, *, reason: str, author: str
    ) -> KillSwitch:
        tenant = EVERYBODY if scope is SwitchScope.GLOBAL else work.tenant
        await work.connection.execute(_ALONE, tenant)
        row = await work.connection.fetchrow(
            "insert into kill_switches (tenant, scope, target, reason, engaged_by) values ($1, $2, $3, $4, $5)"
            f" returning {_SWITCH}",
            tenant,
            scope,
            target,
            reason,
            author,
        )
        return _switch(row)

    async def release(self, work: PostgresWork, switch_id: str, *, author: str) -> KillSwitch:
        await work.connection.execute(_ALONE, work.tenant)
        row = await work.connection.fetchrow(
            "update kill_switches set released_by = coalesce(released_by, $3),"
            " released_at = coalesce(released_at, clock_timestamp())"
            " where id = $1 and tenant = $2 and (released_at is not null or engaged_by not like $4 or $3 like $4)"
            f" returning {_SWITCH}",
            _uuid(switch_id),
            work.tenant,
            author,
            f"{OPERATORS}%",
        )
        if row is None and await self._is_seen(work, switch_id):
            raise Forbidden("the operator engaged it, and alone releases it", code="OPERATORS_ONLY")
        return _switch(_found(row))

    async def _is_seen(self, work: PostgresWork, switch_id: str) -> bool:
        return bool(
            await work.connection.fetchval(
                "select exists(select from kill_switches where id = $1 and tenant in ($2, ''))",
                _uuid(switch_id),
                work.tenant,
            )
        )

    async def switches(self, tenant: str, *, before: str | None, limit: int) -> Sequence[KillSwitch]:
        async with self._postgres.of_tenant(tenant) as connection:
            rows = await connection.fetch(
                f"select {_SWITCH} from kill_switches k where tenant in ($1, '') and ($2::uuid is null or"
                " (engaged_at, id) < (select engaged_at, id from kill_switches where id = $2))"
                " order by engaged_at desc, id desc limit $3",
                tenant,
                None if before is None else _uuid(before),
                limit,
            )
        return [_switch(row) for row in rows]

    async def switch(self, tenant: str, switch_id: str) -> KillSwitch:
        async with self._postgres.of_tenant(tenant) as connection:
            row = await connection.fetchrow(
                f"select {_SWITCH} from kill_switches where id = $1 and tenant in ($2, '')",
                _uuid(switch_id),
                tenant,
            )
        return _switch(_found(row))

    async def set_limits(
        self,
        work: PostgresWork,
        scope: LimitScope,
        target: str,
        limits: dict[str, object],
        *,
        expected: int | None,
        author: str,
    ) -> LimitSet:
        await work.connection.execute(_ALONE, work.tenant)
        now = await work.connection.fetchval(
            "select max(version) from risk_limits where tenant = $1 and scope = $2 and target = $3",
            work.tenant,
            scope,
            target,
        )
        if expected is not None and expected != (now or 0):
            raise Conflict("these limits have been set since", code="VERSION_MISMATCH")
        row = await work.connection.fetchrow(
            "insert into risk_limits (tenant, scope, target, limits, author) values ($1, $2, $3, $4, $5)"
            " returning scope, target, version, limits, author, set_at",
            work.tenant,
            scope,
            target,
            json_of(limits),
            author,
        )
        return _limit_set(row)

    async def limits(self, tenant: str) -> Sequence[LimitSet]:
        async with self._postgres.of_tenant(tenant) as connection:
            rows = await connection.fetch(_NEWEST.format(where=""), tenant)
        return [_limit_set(row) for row in rows]

    async def versions(
        self, tenant: str, scope: LimitScope, target: str, *, limit: int
    ) -> Sequence[LimitSet]:
        async with self._postgres.of_tenant(tenant) as connection:
            rows = await connection.fetch(
                "select scope, target, version, limits, author, set_at from risk_limits"
                " where tenant = $1 and scope = $2 and target = $3 order by version desc limit $4",
                tenant,
                scope,
                target,
                limit,
            )
        return [_limit_set(row) for row in rows]

    async def set_state(
        self,
        work: PostgresWork,
        scope: SwitchScope,
        target: str,
        state: TradingState,
        *,
        reason: str,
        author: str,
    ) -> StateSet:
        await work.connection.execute(_ALONE, work.tenant)
        row = await work.connection.fetchrow(
            "insert into trading_states (tenant, scope, target, state, reason, author)"
            " values ($1, $2, $3, $4, $5, $6) on conflict (tenant, scope, target) do update set"
            " state = excluded.state, reason = excluded.reason, author = excluded.author,"
            " version = trading_states.version + 1, set_at = excluded.set_at"
            " returning scope, target, state, version, reason, author, set_at",
            work.tenant,
            scope,
            target,
            state,
            reason,
            author,
        )
        return _state(row)

    async def states(self, tenant: str) -> Sequence[StateSet]:
        async with self._postgres.of_tenant(tenant) as connection:
            rows = await connection.fetch(
                "select scope, target, state, version, reason, author, set_at from trading_states"
                " where tenant = $1 order by scope, target",
                tenant,
            )
        return [_state(row) for row in rows]

    async def engaged(self) -> Sequence[KillSwitch]:
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(
                f"select {_SWITCH} from kill_switches where released_at is null order by engaged_at"
            )
        return [_switch(row) for row in rows]

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


def _limit_set(row: asyncpg.Record) -> LimitSet:
    return LimitSet(
        scope=LimitScope(row["scope"]),
        target=row["target"],
        version=row["version"],
        limits=msgspec.json.decode(row["limits"]),
        author=row["author"],
        set_at_ms=ms(row["set_at"]) or 0,
    )


def _state(row: asyncpg.Record) -> StateSet:
    return StateSet(
        scope=SwitchScope(row["scope"]),
        target=row["target"],
        state=TradingState(row["state"]),
        version=row["version"],
        reason=row["reason"],
        author=row["author"],
        set_at_ms=ms(row["set_at"]) or 0,
    )


def _switch(row: asyncpg.Record) -> KillSwitch:
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


def _found(row: asyncpg.Record | None) -> asyncpg.Record:
    if row is None:
        raise NotFound("there is no such kill switch", code="KILL_SWITCH_NOT_FOUND")
    return row


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as e:
        raise NotFound("no kill switch can have this id", code="KILL_SWITCH_NOT_FOUND") from e


@asynccontextmanager
async def open_risk_book(_settings: Settings, services: Mapping[str, Any]) -> AsyncIterator[PostgresRiskBook]:
    yield PostgresRiskBook(services["postgres"])
