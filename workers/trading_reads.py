"""Questions about trading: orders, what happened to them, fills, positions, how an account stands."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors.exceptions import Invalid
from core.infrastructure.central_hub import Hub
from core.messages.jobs import Answer
from core.messages.orders import (
    FillPageQuestion,
    OrderPageQuestion,
    OrderQuestion,
    PositionQuestion,
    StandingQuestion,
    after_of,
    cursor_of,
    event_fields,
    fill_fields,
    holding_fields,
    order_fields,
    standing_fields,
)
from core.model.records import RecordKind
from core.ports.jobs import JobFunction
from core.ports.orders import TradingReads
from core.settings import Settings
from workers.accounts import AccountJobs
from workers.answering import one, page, question


@dataclass(frozen=True, slots=True, kw_only=True)
class TradingJobs:
    """Answers what a job asks of trading."""

    reads: TradingReads

    def functions(self) -> Sequence[JobFunction]:
        """Return the questions, each with its name in the job table."""
        deeds: Mapping[str, Callable[[Any, str], Awaitable[Answer]]] = {
            "orders.read": self.order,
            "orders.page": self.orders,
            "orders.events": self.events,
            "fills.page": self.fills,
            "positions.list": self.positions,
            "accounts.standing": self.standing,
        }
        return [question(name, do) for name, do in deeds.items()]

    async def order(self, asked: OrderQuestion, tenant: str) -> Answer:
        return one(order_fields(await self.reads.order(tenant, asked.id)))

    async def events(self, asked: OrderQuestion, tenant: str) -> Answer:
        return page(map(event_fields, await self.reads.events(tenant, asked.id)))

    async def orders(self, asked: OrderPageQuestion, tenant: str) -> Answer:
        found = await self.reads.orders(tenant, before=asked.before, limit=asked.limit + 1, where=asked.where)
        kept = found[: asked.limit]
        return page(map(order_fields, kept), kept[-1].order.id if len(found) > asked.limit else None)

    async def fills(self, asked: FillPageQuestion, tenant: str) -> Answer:
        try:
            after = after_of(asked.after)
        except ValueError as e:
            raise Invalid("the cursor is none of ours", code="BAD_CURSOR") from e
        found = await self.reads.fills(tenant, after=after, limit=asked.limit + 1, where=asked.where)
        kept = found[: asked.limit]
        return page(map(fill_fields, kept), cursor_of(kept[-1]) if len(found) > asked.limit else None)

    async def positions(self, asked: PositionQuestion, tenant: str) -> Answer:
        return page(map(holding_fields, await self.reads.positions(tenant, asked.account)))

    async def standing(self, asked: StandingQuestion, tenant: str) -> Answer:
        return one(standing_fields(await self.reads.standing(tenant, asked.id)))


def functions(hub: Hub, _settings: Settings) -> Sequence[JobFunction]:
    """Return the functions over this hub's ledger."""
    reads = hub["trading_reads"]
    accounts = AccountJobs(kind=RecordKind.ACCOUNTS, keeper=hub["ledger_records"], standings=reads)
    return [*TradingJobs(reads=reads).functions(), *accounts.functions()]
