"""Approvals in the ledger: each is a row that is used or revoked once, and its terms are the denied order's own row."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

import asyncpg

from core.adapters.postgres.order_ledger import not_found
from core.adapters.postgres.order_rows import ENTRY, ENTRY_OF_O, entry_of, ms
from core.adapters.postgres.pool import Postgres
from core.adapters.postgres.work import PostgresWork
from core.errors.exceptions import Conflict, Defect, Forbidden, NotFound
from core.model.approvals import Approval
from core.model.ledger import OrderEntry
from core.settings import Settings
from core.trading.approving import NEEDED

_APPROVAL: Final = (
    "a.id as approval_id, a.reason as approval_reason, a.granted_by, a.granted_at, a.expires_at, a.used_by, a.used_at,"
    " a.revoked_by, a.revoked_at"
)
_FOUND: Final = (
    f"select {_APPROVAL}, {ENTRY_OF_O} from order_approvals a"
    " join orders o on o.tenant = a.tenant and o.id = a.order_id where a.tenant = $1"
)
_ONE: Final = f"{_FOUND} and a.id = $2"
_LOCKED: Final = f"{_ONE} for update of a"


class PostgresApprovals:
    """The `Approvals` port on PostgreSQL."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def grant(
        self, work: PostgresWork, order_id: str, *, author: str, reason: str, valid_for_ms: int
    ) -> Approval:
        row = await work.connection.fetchrow(
            f"select {ENTRY} from orders where tenant = $1 and id = $2", work.tenant, order_id
        )
        if row is None:
            raise not_found(order_id)
        entry = entry_of(row)
        _require_needed(entry, author)
        kept = await work.connection.fetchval(
            "insert into order_approvals (tenant, order_id, reason, granted_by, expires_at)"
            " values ($1, $2, $3, $4, clock_timestamp() + make_interval(secs => $5)) returning id",
            work.tenant,
            order_id,
            reason,
            author,
            valid_for_ms / 1_000,
        )
        return _approval_of(await work.connection.fetchrow(_ONE, work.tenant, kept))

    async def locked(self, work: PostgresWork, approval_id: str) -> Approval | None:
        row = await work.connection.fetchrow(_LOCKED, work.tenant, UUID(approval_id))
        return None if row is None else _approval_of(row)

    async def use(self, work: PostgresWork, approval: Approval, order_id: str) -> Approval:
        return await self._end(work, approval.id, "used", order_id)

    async def revoke(self, work: PostgresWork, approval_id: str, *, author: str) -> Approval | None:
        approval = await self.locked(work, approval_id)
        if approval is None:
            raise _no_approval()
        if approval.used_by is not None:
            raise Conflict(f"order {approval.used_by} was sent by it", code="APPROVAL_USED")
        return (
            None if approval.revoked_by is not None else await self._end(work, approval.id, "revoked", author)
        )

    async def _end(self, work: PostgresWork, approval_id: str, how: str, by: str) -> Approval:
        row = await work.connection.fetchrow(
            f"with ended as (update order_approvals set {how}_by = $3, {how}_at = clock_timestamp()"
            " where tenant = $1 and id = $2 and used_by is null and revoked_by is null returning *)"
            f" select {_APPROVAL}, {ENTRY_OF_O} from ended a"
            " join orders o on o.tenant = a.tenant and o.id = a.order_id",
            work.tenant,
            UUID(approval_id),
            by,
        )
        if row is None:
            raise Defect("an approval was used beside its lock", code="APPROVAL_TWICE", detail=approval_id)
        return _approval_of(row)

    async def approval(self, tenant: str, approval_id: str) -> Approval:
        async with self._postgres.of_tenant(tenant) as connection:
            row = await connection.fetchrow(_ONE, tenant, UUID(approval_id))
        if row is None:
            raise _no_approval()
        return _approval_of(row)

    async def approvals(self, tenant: str, *, before: str | None, limit: int) -> Sequence[Approval]:
        async with self._postgres.of_tenant(tenant) as connection:
            rows = await connection.fetch(
                f"{_FOUND} and ($2::uuid is null or (a.granted_at, a.id) <"
                " (select granted_at, id from order_approvals where tenant = $1 and id = $2))"
                " order by a.granted_at desc, a.id desc limit $3",
                tenant,
                None if before is None else UUID(before),
                limit,
            )
        return [_approval_of(row) for row in rows]


def _require_needed(entry: OrderEntry, author: str) -> None:
    if NEEDED not in {denial.code for denial in entry.denials}:
        raise Conflict("the order was not denied for want of an approval", code="APPROVAL_NOT_NEEDED")
    if entry.submitted_by == author:
        raise Forbidden("somebody else has to approve an order of yours", code="APPROVAL_OWN")


def _approval_of(row: asyncpg.Record) -> Approval:
    entry = entry_of(row)
    return Approval(
        id=str(row["approval_id"]),
        order=entry.order,
        asked_by=entry.submitted_by,
        reason=row["approval_reason"],
        granted_by=row["granted_by"],
        granted_at_ms=ms(row["granted_at"]) or 0,
        expires_at_ms=ms(row["expires_at"]) or 0,
        used_by=row["used_by"],
        used_at_ms=ms(row["used_at"]),
        revoked_by=row["revoked_by"],
        revoked_at_ms=ms(row["revoked_at"]),
    )


def _no_approval() -> NotFound:
    return NotFound("there is no such approval", code="APPROVAL_NOT_FOUND")


@asynccontextmanager
async def open_approvals(
    _settings: Settings, services: Mapping[str, Any]
) -> AsyncIterator[PostgresApprovals]:
    yield PostgresApprovals(services["postgres"])
