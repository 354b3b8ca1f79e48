"""The ledger of orders on a real store, for tests of its ports: accounts of two tenants by the same name."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from ulid import ULID

from core.infrastructure.central_hub import Hub, open_hub
from core.model.ledger import Fill, OrderEntry
from core.model.orders import Order, OrderState, OrderType, Side
from core.ports.access import Work
from core.ports.orders import OrderLedger
from core.settings import Settings
from tests.trading_floors import SYMBOL, account, keep_records

OURS, THEIRS = "demo", "rival"
NEEDS: Final = {"postgres", "order_ledger", "risk_book", "audit", "trading_reads"}
VOLUME, PRICE = Decimal("0.1"), Decimal("1.1")
SHOWN_AT_MS: Final = 1_790_000_000_000


@dataclass
class Books:
    """One ledger. name: of an account that both tenants have, on paper."""

    hub: Hub
    settings: Settings
    name: str

    @property
    def ledger(self) -> OrderLedger:
        ledger: OrderLedger = self.hub["order_ledger"]
        return ledger

    def work(self, tenant: str = OURS) -> Any:
        return self.ledger.work(tenant)

    def entry(self, state: OrderState = OrderState.QUEUED, tenant: str = OURS, **changes: Any) -> OrderEntry:
        fields = {
            "account": self.name,
            "symbol": SYMBOL,
            "side": Side.BUY,
            "type": OrderType.LIMIT,
            "volume": VOLUME,
            "price": PRICE,
            **changes,
        }
        order = Order(id=str(ULID()), tenant=tenant, **fields)
        return OrderEntry(order=order, state=state, version=1, submitted_by="client:demo")

    async def kept(
        self, state: OrderState = OrderState.QUEUED, tenant: str = OURS, **changes: Any
    ) -> OrderEntry:
        """Keep an order as it is submitted."""
        async with self.work(tenant) as work:
            await self.ledger.lock_account(work, changes.get("account", self.name))
            return await self.ledger.add(work, self.entry(state, tenant, **changes))

    async def walked(self, *way: OrderState, **changes: Any) -> OrderEntry:
        """Keep an order and move it on, state by state."""
        entry = await self.kept(**changes)
        async with self.work() as work:
            return await self.walk(work, entry, *way)

    async def walk(self, work: Work, entry: OrderEntry, *way: OrderState) -> OrderEntry:
        for state in way:
            entry = await self.ledger.move(work, entry, state, what="order.walked")
        return entry

    def fill(self, deal: str, order: str | None = None, **changes: Any) -> Fill:
        fields = {
            "account": self.name,
            "venue_order": "7",
            "position": "1",
            "symbol": SYMBOL,
            "side": Side.BUY,
            "volume": VOLUME,
            "price": PRICE,
            "profit": Decimal(0),
            "commission": Decimal(0),
            "at_ms": SHOWN_AT_MS,
        }
        return Fill(deal=deal, order=order, **{**fields, **changes})

    async def rows(self, query: str, *args: Any) -> list[dict[str, Any]]:
        """Look past the ports."""
        async with self.hub["postgres"].acquire() as connection:
            return [dict(row) for row in await connection.fetch(query, *args)]

    async def commands(self, order_id: str) -> list[str]:
        found = await self.rows("select command from order_outbox where order_id = $1 order by id", order_id)
        return [row["command"] for row in found]


@asynccontextmanager
async def opened_books(settings: Settings) -> AsyncIterator[Books]:
    """Open the ledger with a new account of each tenant; the sources `demo` and `rival` are theirs."""
    name = uuid.uuid4().hex[:12]
    for tenant in (OURS, THEIRS):
        await keep_records(settings, tenant, {name: account(source=tenant)}, instrument=False)
    async with open_hub(settings, NEEDS) as hub:
        async with hub["postgres"].acquire() as connection:
            await connection.executemany(
                "insert into sources (name, tenant, token_hash) values ($1, $1, repeat('0', 64))"
                " on conflict do nothing",
                [(OURS,), (THEIRS,)],
            )
        yield Books(hub=hub, settings=settings, name=name)
