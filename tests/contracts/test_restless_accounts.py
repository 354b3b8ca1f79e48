"""An account that is never still is matched with its venue all the same: its orders wait for that, a moment."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest

from core.errors.exceptions import Unavailable
from core.model.orders import OrderState, OrderType
from core.model.venues import TradingAccount, VenueReport
from core.settings import Settings, TradingSettings
from core.trading import reconciliation
from tests.engines import House, new_databases
from tests.reconciled_accounts import TENANT, VOLUME, Reconciled, dealt, held, reconciled
from workers.trading_rounds import RESTLESS_LOOKS, TradingRounds

_S = OrderState


@pytest.fixture(scope="module")
def settings(house: House) -> Settings:
    return new_databases(house)


@pytest.fixture
async def books(settings: Settings) -> AsyncIterator[Reconciled]:
    async with reconciled(settings) as opened:
        yield opened


async def test_orders_wait_while_their_account_is_held(
    books: Reconciled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciliation, "HELD_S_MAX", 30.0)
    filled = await books.order(_S.ACCEPTED)
    books.venue.deals, books.venue.positions = [dealt(filled.order.id)], [held()]
    waiting = await books.order(_S.QUEUED, OrderType.MARKET)
    books.venue.may_show.clear()
    books.venue.shown.clear()
    looking = asyncio.create_task(books.reconciler.reconcile_held(await books.account()))
    await books.venue.shown.wait()
    books.venue.answer = VenueReport(state=_S.REJECTED, code="NO_MONEY")
    sending = asyncio.create_task(books.dispatcher.send(TENANT, waiting.order.id))
    await _somebody_waits(books)
    assert (await books.entry(waiting.order.id)).state is _S.QUEUED
    books.venue.may_show.set()
    await looking
    await sending
    after = await books.entry(filled.order.id)
    assert (after.state, after.filled_volume) == (_S.FILLED, VOLUME)
    assert (await books.entry(waiting.order.id)).state is _S.REJECTED


async def test_a_venue_that_is_slow_to_show_is_not_waited_for_with_the_account_held(
    books: Reconciled,
) -> None:
    entry = await books.order(_S.ACCEPTED)
    books.venue.may_show.clear()
    with pytest.raises(Unavailable):
        await books.reconciler.reconcile_held(await books.account())
    books.venue.may_show.set()
    books.venue.ended, books.venue.deals = [], [dealt(entry.order.id)]
    books.venue.positions = [held()]
    assert await books.look()
    assert (await books.entry(entry.order.id)).state is _S.FILLED


async def _somebody_waits(books: Reconciled) -> None:
    async with asyncio.timeout(10), books.hub["postgres"].acquire() as connection:
        while not await connection.fetchval(
            "select exists(select from pg_stat_activity where cardinality(pg_blocking_pids(pid)) > 0"
            " and datname = current_database())"
        ):
            await asyncio.sleep(0.01)


@dataclass
class Restless:
    """Matches an account that is always being changed. looks: how it was tried."""

    looks: list[str] = field(default_factory=list)

    async def reconcile(self, _account: TradingAccount) -> bool:
        self.looks.append("free")
        return False

    async def reconcile_held(self, _account: TradingAccount) -> None:
        self.looks.append("held")


@dataclass
class Watched:
    """Hands out one account, and counts how often its losses are looked at."""

    account: TradingAccount
    looked: int = 0

    async def accounts(self) -> Sequence[TradingAccount]:
        return [self.account]

    async def look(self, _account: TradingAccount) -> None:
        self.looked += 1


async def test_an_account_that_was_never_still_is_held_and_its_losses_are_looked_at() -> None:
    account = TradingAccount(
        tenant=TENANT,
        id="a",
        venue="paper",
        source="demo",
        currency="USD",
        leverage=100,
        hedging=False,
        opening_balance=Decimal(1),
    )
    restless, watched = Restless(), Watched(account)
    parts: dict[str, Any] = {"ledger": watched, "reconciler": restless, "stops": watched}
    nothing: Any = None
    rounds = TradingRounds(
        **parts, dispatcher=nothing, enforcer=nothing, advance=nothing, settings=TradingSettings()
    )
    for _ in range(2 * (RESTLESS_LOOKS + 1)):
        await rounds.look()
        await asyncio.gather(*rounds._matching.values())
    assert restless.looks == [*["free"] * RESTLESS_LOOKS, "held"] * 2
    assert watched.looked == 2
