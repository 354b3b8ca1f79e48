"""A paper account on real stores and two venues that trade on it, each as a process of its own would."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final

from ulid import ULID

from core.infrastructure.central_hub import Hub, open_hub
from core.model.orders import Order, OrderType, Side
from core.model.venues import TradingAccount, VenueView
from core.settings import Settings
from core.trading.paper.venue import PaperVenue
from tests.trading_floors import SYMBOL, account, keep_records, put_quote

NEEDS: Final = {"postgres", "latest_quotes", "paper_venue", "order_ledger"}
LOT: Final = Decimal("0.01")


class FrozenQuotes:
    """Quotes of a Redis that has stopped answering."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def get(self, _source: str, _symbols: Sequence[str] | None) -> Mapping[str, bytes]:
        self.asked.set()
        await asyncio.Event().wait()
        return {}


class CountedQuotes:
    """Quotes that count how often they are asked for."""

    def __init__(self, quotes: Any) -> None:
        self._quotes = quotes
        self.asked: list[list[str]] = []

    async def get(self, source: str, symbols: Sequence[str] | None) -> Mapping[str, bytes]:
        self.asked.append(list(symbols or ()))
        found: Mapping[str, bytes] = await self._quotes.get(source, symbols)
        return found


@dataclass
class Pit:
    """One account, and two venues with connections of their own."""

    hubs: tuple[Hub, Hub]
    account: TradingAccount

    def venue(self, number: int = 0, **changes: Any) -> PaperVenue:
        venue: PaperVenue = self.hubs[number]["paper_venue"]
        return replace(venue, **changes, _turns={}) if changes else venue

    def order(self, side: Side = Side.BUY, volume: Decimal = LOT, **changes: Any) -> Order:
        fields = {"type": OrderType.MARKET, "symbol": SYMBOL, **changes}
        return Order(
            id=str(ULID()),
            tenant=self.account.tenant,
            account=self.account.id,
            side=side,
            volume=volume,
            **fields,
        )

    async def seen(self) -> VenueView:
        return await self.venue().view(self.account, 0)


@asynccontextmanager
async def opened_pit(settings: Settings) -> AsyncIterator[Pit]:
    """Open a new account of the tenant demo, quoted by its source of that name."""
    name = uuid.uuid4().hex[:12]
    await keep_records(settings, "demo", {name: account()}, instrument=False)
    async with AsyncExitStack() as stack:
        hubs = [await stack.enter_async_context(open_hub(settings, NEEDS)) for _ in range(2)]
        async with hubs[0]["postgres"].acquire() as connection:
            await connection.execute(
                "insert into sources (name, tenant, token_hash) values ('demo', 'demo', repeat('0', 64))"
                " on conflict do nothing"
            )
            known = await connection.fetchval("select exists(select from instruments)")
        if not known:
            await keep_records(settings, "demo", {})
        await put_quote(settings)
        found = [one for one in await hubs[0]["order_ledger"].accounts() if one.id == name]
        yield Pit(hubs=(hubs[0], hubs[1]), account=found[0])


def net(view: VenueView) -> Decimal:
    return sum((one.side.sign * one.volume for one in view.positions), Decimal(0))


def dealt(view: VenueView) -> Decimal:
    return sum((one.side.sign * one.volume for one in view.deals), Decimal(0))
