"""The `Work` port: an open transaction of one tenant, so that several adapters can write what belongs together."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from core.adapters.postgres.pool import Postgres
from core.model.audit import AuditEvent
from core.model.ledger import Standing

HOLD_RISK: Final = (
    "select pg_advisory_xact_lock_shared(hashtextextended('tickgate.risk/', 0)),"
    " pg_advisory_xact_lock_shared(hashtextextended('tickgate.risk/' || {tenant}, 0))"
)
"""Holds changes of the tenant's risk off, and of everybody's. tenant: SQL for its name."""


class PostgresWork:
    """connection: inside a transaction in the tenant's role. holds_risk: whether it holds changes of risk off.

    standings: of the accounts it has locked, as they are; until the work ends nobody else can change them. untold:
    what `tell` writes to the audit trail right before it commits. told: called once that is committed; never waits.
    """

    def __init__(self, tenant: str, connection: asyncpg.Connection, *, holds_risk: bool = False) -> None:
        self.tenant = tenant
        self.connection = connection
        self.holds_risk = holds_risk
        self.standings: dict[str, Standing] = {}
        self.untold: list[AuditEvent] = []
        self.tell: Callable[[], Awaitable[None]] | None = None
        self.told: Callable[[], None] | None = None

    async def end(self) -> None:
        """Write what was left for the end. Whoever opens a work ends it, or it is not committed."""
        if self.tell is not None:
            await self.tell()

    def committed(self) -> None:
        """Say so, once it is; where that is not known, nobody is told."""
        if self.told is not None:
            self.told()


@asynccontextmanager
async def work_of(
    postgres: Postgres, tenant: str, *, holding_risk: bool = False
) -> AsyncIterator[PostgresWork]:
    """Open a transaction for `tenant`; it commits when left without an error. Raises as `of_tenant` does."""
    async with postgres.of_tenant(tenant, first=HOLD_RISK if holding_risk else "") as connection:
        work = PostgresWork(tenant, connection, holds_risk=holding_risk)
        yield work
        await work.end()
    work.committed()


@asynccontextmanager
async def operators_work(postgres: Postgres) -> AsyncIterator[PostgresWork]:
    """Open a transaction for what belongs to no tenant but to the house; row-level security does not apply to it."""
    async with postgres.acquire() as connection, connection.transaction():
        work = PostgresWork("", connection)
        yield work
        await work.end()
