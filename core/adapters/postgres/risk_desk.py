"""Where limits, trading states and kill switches are set and shown. A change holds the book alone until it commits."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

import asyncpg

from core.adapters.postgres.order_rows import json_of
from core.adapters.postgres.pool import Postgres
from core.adapters.postgres.risk_book import ALONE, PostgresRiskBook
from core.adapters.postgres.risk_rows import (
    LIMITS,
    NEWEST_LIMITS,
    STATE,
    SWITCH,
    limit_set_of,
    restriction_of,
    state_of,
    switch_of,
)
from core.adapters.postgres.work import PostgresWork
from core.errors.exceptions import Conflict, Forbidden, NotFound
from core.model.risk import (
    OPERATORS,
    KillSwitch,
    LimitScope,
    LimitSet,
    Restriction,
    StateSet,
    SwitchScope,
    TradingState,
)
from core.ports.risk import Place
from core.settings import Settings

EVERYBODY: Final = ""
_BEHIND: Final = "and ($2::text is null or (scope, target) > ($2, $3))"
_RESTRICTIONS: Final = (
    "select tenant, scope, target, 'HALTED' as state from kill_switches where released_at is null"
    " union select tenant, scope, target, state from trading_states where state <> 'ACTIVE'"
    " order by tenant, scope, target, state"
)
_IS_ACCOUNT: Final = "select exists(select from accounts where tenant = $1 and id = $2)"


class PostgresRiskDesk(PostgresRiskBook):
    """The `RiskDesk` port on PostgreSQL."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def engage(
        self, work: PostgresWork, scope: SwitchScope, target: str, *, reason: str, author: str
    ) -> KillSwitch:
        tenant = EVERYBODY if scope is SwitchScope.GLOBAL else work.tenant
        if scope is SwitchScope.ACCOUNT and not await work.connection.fetchval(_IS_ACCOUNT, tenant, target):
            # Mistyped in a hurry, and everybody would believe that it is halted.
            raise NotFound(f"there is no account {target!r}", code="ACCOUNT_NOT_FOUND")
        await work.connection.execute(ALONE, tenant)
        row = await work.connection.fetchrow(
            "insert into kill_switches (tenant, scope, target, reason, engaged_by) values ($1, $2, $3, $4, $5)"
            f" returning {SWITCH}",
            tenant,
            scope,
            target,
            reason,
            author,
        )
        return switch_of(row)

    async def release(self, work: PostgresWork, switch_id: str, *, author: str) -> KillSwitch | None:
        await work.connection.execute(ALONE, work.tenant)
        row = await work.connection.fetchrow(
            f"select {SWITCH} from kill_switches where id = $1 and tenant in ($2, '')",
            _uuid(switch_id),
            work.tenant,
        )
        switch = switch_of(_found(row))
        if switch.released_at_ms is not None:
            return None
        if switch.engaged_by.startswith(OPERATORS) and not author.startswith(OPERATORS):
            raise Forbidden("the operator engaged it, and alone releases it", code="OPERATORS_ONLY")
        released = await work.connection.fetchrow(
            "update kill_switches set released_by = $3, released_at = clock_timestamp()"
            f" where id = $1 and tenant = $2 returning {SWITCH}",
            _uuid(switch_id),
            switch.tenant,
            author,
        )
        return switch_of(_found(released))

    async def switches(self, tenant: str, *, before: str | None, limit: int) -> Sequence[KillSwitch]:
        async with self._postgres.of_tenant(tenant) as connection:
            rows = await connection.fetch(
                f"select {SWITCH} from kill_switches k where tenant in ($1, '') and ($2::uuid is null or"
                " (engaged_at, id) < (select engaged_at, id from kill_switches where id = $2))"
                " order by engaged_at desc, id desc limit $3",
                tenant,
                None if before is None else _uuid(before),
                limit,
            )
        return [switch_of(row) for row in rows]

    async def switch(self, tenant: str, switch_id: str) -> KillSwitch:
        async with self._postgres.of_tenant(tenant) as connection:
            row = await connection.fetchrow(
                f"select {SWITCH} from kill_switches where id = $1 and tenant in ($2, '')",
                _uuid(switch_id),
                tenant,
            )
        return switch_of(_found(row))

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
        await work.connection.execute(ALONE, work.tenant)
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
            f" returning {LIMITS}",
            work.tenant,
            scope,
            target,
            json_of(limits),
            author,
        )
        return limit_set_of(row)

    async def limits(self, tenant: str, *, after: Place | None, limit: int) -> Sequence[LimitSet]:
        async with self._postgres.of_tenant(tenant) as connection:
            rows = await connection.fetch(
                NEWEST_LIMITS.format(where=_BEHIND) + " limit $4", tenant, *(after or (None, None)), limit
            )
        return [limit_set_of(row) for row in rows]

    async def versions(
        self, tenant: str, scope: LimitScope, target: str, *, before: int | None, limit: int
    ) -> Sequence[LimitSet]:
        async with self._postgres.of_tenant(tenant) as connection:
            rows = await connection.fetch(
                f"select {LIMITS} from risk_limits"
                " where tenant = $1 and scope = $2 and target = $3 and ($4::bigint is null or version < $4)"
                " order by version desc limit $5",
                tenant,
                scope,
                target,
                before,
                limit,
            )
        return [limit_set_of(row) for row in rows]

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
        await work.connection.execute(ALONE, work.tenant)
        row = await work.connection.fetchrow(
            "insert into trading_states (tenant, scope, target, state, reason, author)"
            " values ($1, $2, $3, $4, $5, $6) on conflict (tenant, scope, target) do update set"
            " state = excluded.state, reason = excluded.reason, author = excluded.author,"
            " version = trading_states.version + 1, set_at = excluded.set_at"
            f" returning {STATE}",
            work.tenant,
            scope,
            target,
            state,
            reason,
            author,
        )
        return state_of(row)

    async def states(self, tenant: str, *, after: Place | None, limit: int) -> Sequence[StateSet]:
        async with self._postgres.of_tenant(tenant) as connection:
            rows = await connection.fetch(
                f"select {STATE} from trading_states where tenant = $1 {_BEHIND} order by scope, target limit $4",
                tenant,
                *(after or (None, None)),
                limit,
            )
        return [state_of(row) for row in rows]

    async def state(self, tenant: str, scope: SwitchScope, target: str) -> StateSet:
        async with self._postgres.of_tenant(tenant) as connection:
            row = await connection.fetchrow(
                f"select {STATE} from trading_states where tenant = $1 and scope = $2 and target = $3",
                tenant,
                scope,
                target,
            )
        if row is None:
            raise NotFound("no state is set here; it is ACTIVE", code="TRADING_STATE_NOT_FOUND")
        return state_of(row)

    async def engaged(self) -> Sequence[KillSwitch]:
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(
                f"select {SWITCH} from kill_switches where released_at is null order by engaged_at"
            )
        return [switch_of(row) for row in rows]

    async def restrictions(self) -> Sequence[Restriction]:
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(_RESTRICTIONS)
        return [restriction_of(row) for row in rows]


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
async def open_risk_desk(_settings: Settings, services: Mapping[str, Any]) -> AsyncIterator[PostgresRiskDesk]:
    yield PostgresRiskDesk(services["postgres"])
