"""A switch that is being engaged among orders: nobody waits in a circle, and nothing is sent or changed behind it."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import pytest
from ulid import ULID

from core.errors.exceptions import Denied
from core.infrastructure.central_hub import Hub, open_hub
from core.model.ledger import OrderEntry
from core.model.orders import Order, OrderState, OrderType, Side
from core.model.risk import KillSwitch, SwitchScope, TradingState
from core.model.venues import OrderChange, TradingAccount, VenuePosition, VenueView
from core.settings import Settings
from core.trading.changes import OrderChanges
from core.trading.dispatch import Dispatcher
from core.trading.enforcement import Enforcer
from core.trading.reconciliation import Patience, Reconciler
from core.trading.settling import Settlement
from core.trading.submission import OrderEntrance
from tests.engines import House, new_databases
from tests.trading_floors import SYMBOL, account, keep_records

WAITING_S_MAX = 20.0
NEEDS = {"postgres", "risk_book", "order_ledger", "audit", "latest_quotes"}
_S = OrderState


@pytest.fixture(scope="module")
def settings(house: House) -> Settings:
    return new_databases(house)


class FrozenQuotes:
    """Quotes of a Redis that has stopped answering: nobody is told any before `thawed`."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.thawed = asyncio.Event()

    async def get(self, _source: str, _symbols: Sequence[str] | None) -> Mapping[str, bytes]:
        self.asked.set()
        await self.thawed.wait()
        return {}


class StillVenue:
    """A venue that holds one position and nothing else."""

    async def view(self, _account: TradingAccount, _since_ms: int) -> VenueView:
        position = VenuePosition(
            ticket="1",
            tag="",
            symbol=SYMBOL,
            side=Side.BUY,
            volume=Decimal("0.1"),
            price_open=Decimal("1.1"),
            at_ms=1_790_000_000_000,
        )
        money = Decimal(10_000)
        return VenueView(
            at_ms=1_790_000_000_000,
            balance=money,
            equity=money,
            margin=Decimal(0),
            margin_free=money,
            positions=(position,),
        )


@dataclass
class Desk:
    """One tenant's desk with the account `paper`; it has no venue, so an order that were sent would be an error."""

    hub: Hub
    tenant: str
    quotes: "FrozenQuotes | None" = None

    @property
    def dispatcher(self) -> Dispatcher:
        return Dispatcher(
            ledger=self.hub["order_ledger"],
            risk=self.hub["risk_book"],
            settlement=self.settlement,
            venues={},
            send_timeout_s=1.0,
        )

    @property
    def entrance(self) -> OrderEntrance:
        return OrderEntrance(
            desk=self.hub["order_ledger"],
            risk=self.hub["risk_book"],
            audit=self.hub["audit"],
            quotes=self.quotes or self.hub["latest_quotes"],
        )

    @property
    def changes(self) -> OrderChanges:
        return OrderChanges(
            ledger=self.hub["order_ledger"], settlement=self.settlement, entrance=self.entrance
        )

    @property
    def settlement(self) -> Settlement:
        return Settlement(ledger=self.hub["order_ledger"], audit=self.hub["audit"])

    def work(self) -> Any:
        return self.hub["order_ledger"].work(self.tenant)

    @property
    def enforcer(self) -> Enforcer:
        return Enforcer(
            ledger=self.hub["order_ledger"], risk=self.hub["risk_book"], settlement=self.settlement
        )

    def order(self, **changes: Any) -> Order:
        order = Order(
            id=str(ULID()),
            tenant=self.tenant,
            account="paper",
            symbol=SYMBOL,
            side=Side.BUY,
            type=OrderType.LIMIT,
            volume=Decimal("0.1"),
            price=Decimal("1.05"),
        )
        return replace(order, **changes)

    async def reconcile(self) -> bool:
        (account,) = [one for one in await self.hub["order_ledger"].accounts() if one.tenant == self.tenant]
        reconciler = Reconciler(
            ledger=self.hub["order_ledger"],
            settlement=self.settlement,
            venues={account.venue: StillVenue()},  # type: ignore[dict-item]
            quotes=self.quotes or self.hub["latest_quotes"],
            patience=Patience(sending_s=1.0, absent_s=1.0),
            new_id=lambda: str(ULID()),
        )
        return await reconciler.reconcile(account)

    async def submit(self) -> OrderEntry:
        async with self.work() as work:
            return await self.entrance.submit(work, self.order(), actor="client:c", traceparent="")

    async def keep(self, state: OrderState, **changes: Any) -> str:
        """Keep an order in a state and return its id."""
        order = self.order(**changes)
        ledger = self.hub["order_ledger"]
        async with self.work() as work:
            await ledger.lock_account(work, "paper")
            entry = await ledger.add(
                work, OrderEntry(order=order, state=_S.QUEUED, version=1, submitted_by="client:c")
            )
            way = {_S.QUEUED: (), _S.ACCEPTED: (_S.SENDING, _S.ACCEPTED)}[state]
            for step in way:
                entry = await ledger.move(work, entry, step, what="order.moved")
        return order.id

    async def state_of(self, order_id: str) -> tuple[OrderState, list[str]]:
        async with self.work() as work:
            entry = await self.hub["order_ledger"].locked(work, order_id)
        return entry.state, [denial.code for denial in entry.denials]

    async def engage(self) -> KillSwitch:
        async with self.work() as work:
            switch: KillSwitch = await self.hub["risk_book"].engage(
                work, SwitchScope.TENANT, "", reason="r", author="client:c"
            )
        return switch

    async def set_state(
        self, state: TradingState, scope: SwitchScope = SwitchScope.ACCOUNT, target: str = "paper"
    ) -> None:
        async with self.work() as work:
            await self.hub["risk_book"].set_state(work, scope, target, state, reason="r", author="client:c")

    async def modify(self, order_id: str) -> OrderEntry:
        async with self.work() as work:
            return await self.changes.modify(
                work, order_id, OrderChange(price=Decimal("1.06")), actor="client:c"
            )

    async def waiting(self, count: int) -> None:
        """Wait until so many transactions wait for a lock of the risk book."""
        query = (
            "select count(*) from pg_locks where locktype = 'advisory' and not granted"
            " and database = (select oid from pg_database where datname = current_database())"
        )
        async with asyncio.timeout(WAITING_S_MAX), self.hub["postgres"].acquire() as connection:
            while await connection.fetchval(query) < count:
                await asyncio.sleep(0.01)

    async def locks_the_account_at_once(self, work: Any) -> None:
        # Well below the second after which PostgreSQL looks for deadlocks, and would make an end of the circle.
        await work.connection.execute("set local lock_timeout = '500ms'")
        await self.hub["order_ledger"].lock_account(work, "paper")


@pytest.fixture
async def desk(settings: Settings) -> AsyncIterator[Desk]:
    tenant = f"t-{uuid.uuid4().hex[:12]}"
    await keep_records(settings, tenant, {"paper": account(source=tenant)})
    async with open_hub(settings, NEEDS) as hub:
        async with hub["postgres"].acquire() as connection:
            await connection.execute(
                "insert into sources (name, tenant, token_hash) values ($1, $1, $2)", tenant, "0" * 64
            )
        desk = Desk(hub, tenant)
        # Orders wait for a venue that has not been seen.
        assert await desk.reconcile()
        yield desk


async def test_a_switch_between_an_order_and_a_sending_makes_no_circle(desk: Desk) -> None:
    queued = await desk.keep(_S.QUEUED)
    async with desk.work() as work:
        await desk.hub["risk_book"].rules(work, account="paper", strategy="", symbol=SYMBOL)
        engaging = asyncio.ensure_future(desk.engage())
        await desk.waiting(1)
        sending = asyncio.ensure_future(desk.dispatcher.send(desk.tenant, queued))
        await desk.waiting(2)
        await desk.locks_the_account_at_once(work)
    await asyncio.gather(engaging, sending)
    assert await desk.state_of(queued) == (_S.DENIED, ["TRADING_HALTED"])


async def test_a_switch_between_an_order_and_a_change_makes_no_circle(desk: Desk) -> None:
    working = await desk.keep(_S.ACCEPTED)
    async with desk.work() as work:
        await desk.hub["risk_book"].rules(work, account="paper", strategy="", symbol=SYMBOL)
        engaging = asyncio.ensure_future(desk.engage())
        await desk.waiting(1)
        changing = asyncio.ensure_future(desk.modify(working))
        await desk.waiting(2)
        await desk.locks_the_account_at_once(work)
    await engaging
    with pytest.raises(Denied, match="TRADING_HALTED"):
        await changing
    assert (await desk.state_of(working))[0] is _S.ACCEPTED


@pytest.mark.parametrize("doing", ["submit", "modify"])
async def test_a_switch_does_not_wait_for_quotes_that_do_not_come(desk: Desk, doing: str) -> None:
    working = await desk.keep(_S.ACCEPTED)
    desk.quotes = FrozenQuotes()
    asking = asyncio.ensure_future(desk.submit() if doing == "submit" else desk.modify(working))
    async with asyncio.timeout(WAITING_S_MAX):
        await desk.quotes.asked.wait()
        await desk.engage()
    assert not asking.done()
    desk.quotes.thawed.set()
    if doing == "submit":
        assert "TRADING_HALTED" in {denial.code for denial in (await asking).denials}
    else:
        with pytest.raises(Denied, match="TRADING_HALTED"):
            await asking


async def test_an_account_does_not_wait_for_quotes_while_it_is_compared(desk: Desk) -> None:
    """An order waits for its account, and a switch for the order."""
    desk.quotes = FrozenQuotes()
    comparing = asyncio.ensure_future(desk.reconcile())
    async with asyncio.timeout(WAITING_S_MAX):
        await desk.quotes.asked.wait()
        async with desk.work() as work:
            await desk.locks_the_account_at_once(work)
    desk.quotes.thawed.set()
    assert await comparing


async def test_an_order_that_waits_is_not_sent_in_a_halted_state(desk: Desk) -> None:
    queued = await desk.keep(_S.QUEUED)
    await desk.set_state(TradingState.HALTED)
    await desk.dispatcher.send(desk.tenant, queued)
    assert await desk.state_of(queued) == (_S.DENIED, ["TRADING_HALTED"])


HALTING = [
    (SwitchScope.TENANT, ""),
    (SwitchScope.ACCOUNT, "paper"),
    (SwitchScope.STRATEGY, "trend"),
]


@pytest.mark.parametrize(("scope", "target"), HALTING, ids=[scope for scope, _ in HALTING])
async def test_a_halted_state_denies_what_waits_and_takes_back_what_works(
    desk: Desk, scope: SwitchScope, target: str
) -> None:
    waits, works = [await desk.keep(state, strategy="trend") for state in (_S.QUEUED, _S.ACCEPTED)]
    await desk.set_state(TradingState.HALTED, scope, target)
    await desk.enforcer.enforce()
    assert await desk.state_of(waits) == (_S.DENIED, ["TRADING_HALTED"])
    assert (await desk.state_of(works))[0] is _S.PENDING_CANCEL
    assert await desk.enforcer.enforce() == 0


async def test_a_halted_strategy_leaves_the_others_alone(desk: Desk) -> None:
    other = await desk.keep(_S.ACCEPTED, strategy="carry")
    await desk.set_state(TradingState.HALTED, SwitchScope.STRATEGY, "trend")
    await desk.enforcer.enforce()
    assert (await desk.state_of(other))[0] is _S.ACCEPTED


async def test_an_active_state_takes_nothing_back(desk: Desk) -> None:
    works = await desk.keep(_S.ACCEPTED)
    await desk.set_state(TradingState.ACTIVE)
    await desk.enforcer.enforce()
    assert (await desk.state_of(works))[0] is _S.ACCEPTED


async def test_reducing_takes_back_what_could_let_a_position_grow(desk: Desk) -> None:
    """The account is long 0.1 lots."""
    grows = await desk.keep(_S.ACCEPTED)
    protects = await desk.keep(_S.ACCEPTED, side=Side.SELL, volume=Decimal("0.06"))
    turns = await desk.keep(_S.ACCEPTED, side=Side.SELL, volume=Decimal("0.05"))
    fits = await desk.keep(_S.QUEUED, side=Side.SELL, volume=Decimal("0.04"))
    await desk.set_state(TradingState.REDUCING)
    await desk.enforcer.enforce()
    assert await desk.enforcer.enforce() == 0
    states = [(await desk.state_of(one))[0] for one in (grows, protects, turns, fits)]
    assert states == [_S.PENDING_CANCEL, _S.ACCEPTED, _S.PENDING_CANCEL, _S.QUEUED]


async def test_reducing_denies_what_waits_and_would_grow(desk: Desk) -> None:
    grows = await desk.keep(_S.QUEUED)
    await desk.set_state(TradingState.REDUCING)
    await desk.enforcer.enforce()
    assert await desk.state_of(grows) == (_S.DENIED, ["REDUCING_ONLY"])


async def test_while_reducing_an_order_that_would_grow_is_not_sent(desk: Desk) -> None:
    grows = await desk.keep(_S.QUEUED)
    await desk.set_state(TradingState.REDUCING)
    await desk.dispatcher.send(desk.tenant, grows)
    assert await desk.state_of(grows) == (_S.DENIED, ["REDUCING_ONLY"])


async def test_while_reducing_a_smaller_order_is_sent(desk: Desk) -> None:
    shrinks = await desk.keep(_S.QUEUED, side=Side.SELL)
    await desk.set_state(TradingState.REDUCING)
    with pytest.raises(KeyError, match="paper"):
        # As far as the venue, which it does not have.
        await desk.dispatcher.send(desk.tenant, shrinks)
    assert (await desk.state_of(shrinks))[0] is _S.SENDING
