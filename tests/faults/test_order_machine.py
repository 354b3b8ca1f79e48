"""Orders as a state machine: submitted, sent, matched, taken back, by whoever dies at any await, at a venue that errs.

The code is the product's, the ledger a real PostgreSQL; the venue keeps the truth in memory. Whatever happens in which
order: no order executes twice, each ends or is UNKNOWN, what was filled is what is held, no move is illegal, the audit
verifies, and nothing is sent behind a kill switch.
"""

import asyncio
import os
import time
import uuid
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import FlakyFailure
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from ulid import ULID

from core.adapters.postgres.idempotency import PostgresIdempotency
from core.auditing.checkpoints import Keyring
from core.auditing.verification import verify
from core.errors.exceptions import TickgateError
from core.infrastructure.central_hub import Hub, open_hub
from core.model.ledger import Command, OrderEntry, OutboxRow
from core.model.orders import TERMINAL, Order, OrderState, OrderType, Side, may_move
from core.model.records import RecordKind
from core.model.risk import LimitScope, SwitchScope
from core.model.venues import TradingAccount, VenueReport
from core.ports.idempotency import AnsweredBefore, IdempotentRequest, StoredAnswer
from core.settings import Settings
from core.trading.changes import OrderChanges
from core.trading.dispatch import Dispatcher
from core.trading.enforcement import Enforcer
from core.trading.reconciliation import Patience, Reconciler
from core.trading.settling import Settlement
from core.trading.submission import OrderEntrance
from tests.engines import House, new_databases
from tests.trading_floors import INSTRUMENT, SYMBOL, account
from tests.trading_truth import Trouble, TruthVenue, dying

NEEDS: Final = {
    "order_ledger",
    "risk_book",
    "audit",
    "audit_archive",
    "ledger_records",
    "postgres",
    "trading_reads",
}
TENANT: Final = "demo"
LIMITS: Final = {
    "submits_per_minute_max": 1_000_000,
    "duplicate_window_ms": 0,
    "consecutive_rejects_max": 1_000_000,
}
HEALED_AFTER: Final = 12
VOLUME, LIMIT_PRICE = Decimal("0.1"), Decimal("1.09")
EXAMPLES: Final = int(os.environ.get("TICKGATE_TEST_ORDER_EXAMPLES", "100"))
AWAITS: Final = st.none() | st.integers(0, 60)


class Quoted:
    """A market that stands still, and is always fresh."""

    async def get(self, _source: str, symbols: Sequence[str] | None) -> Mapping[str, bytes]:
        now_ms = int(time.time() * 1_000)
        quote = msgspec.json.encode({"bid": 1.1, "ask": 1.1001, "utc_ms": now_ms})
        return dict.fromkeys(symbols or (), quote)


class Ground:
    """What every example shares: the ledger, and the loop everything runs in."""

    def __init__(self, of: Settings) -> None:
        self.loop = asyncio.new_event_loop()
        self._opened = open_hub(of, NEEDS)
        self.hub: Hub = self.run(self._opened.__aenter__())
        self.run(self._prepare())

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(coroutine)

    def close(self) -> None:
        self.run(self._opened.__aexit__(None, None, None))
        self.loop.close()

    async def _prepare(self) -> None:
        async with self.hub["postgres"].acquire() as connection:
            await connection.execute(
                "insert into sources (name, tenant, token_hash) values ('demo', 'demo', repeat('0', 64))"
            )
        records = self.hub["ledger_records"]
        await records.create(RecordKind.INSTRUMENTS, TENANT, "eurusd", INSTRUMENT, version=uuid.uuid4().hex)


class OrderMachine(RuleBasedStateMachine):
    """One account's life. house: set before it runs."""

    house: Ground

    def __init__(self) -> None:
        super().__init__()
        self.name = uuid.uuid4().hex[:12]
        self.venue = TruthVenue()
        self.submitted: set[str] = set()
        hub = self.house.hub
        self.ledger = hub["order_ledger"]
        self.settlement = Settlement(ledger=self.ledger, audit=hub["audit"])
        self.entrance = OrderEntrance(
            desk=self.ledger, risk=hub["risk_book"], audit=hub["audit"], quotes=Quoted()
        )
        self.changes = OrderChanges(ledger=self.ledger, settlement=self.settlement, entrance=self.entrance)
        venues = {"paper": self.venue}
        self.dispatcher = Dispatcher(
            ledger=self.ledger,
            risk=hub["risk_book"],
            settlement=self.settlement,
            venues=venues,
            send_timeout_s=5.0,
        )
        self.reconciler = Reconciler(
            ledger=self.ledger,
            settlement=self.settlement,
            venues=venues,
            quotes=Quoted(),
            patience=Patience(sending_s=15, absent_s=30),
            new_id=lambda: str(ULID()),
        )
        self.enforcer = Enforcer(ledger=self.ledger, risk=hub["risk_book"], settlement=self.settlement)
        self.idempotency = PostgresIdempotency(hub["postgres"], 3_600, lease_s=0.01)
        self.house.run(self._begin())

    async def _begin(self) -> None:
        hub = self.house.hub
        await hub["ledger_records"].create(
            RecordKind.ACCOUNTS, TENANT, self.name, account(), version=uuid.uuid4().hex
        )
        async with self.ledger.work(TENANT) as work:
            await hub["risk_book"].hold(work)
        await self._set_limits()
        await self.reconciler.reconcile(await self._account())

    async def _set_limits(self) -> None:
        async with self.ledger.work(TENANT) as work:
            await self.house.hub["risk_book"].set_limits(
                work, LimitScope.TENANT, "", dict(LIMITS), expected=None, author="test"
            )

    async def _account(self) -> TradingAccount:
        return next(one for one in await self.ledger.accounts() if one.id == self.name)

    # -- what happens --------------------------------------------------------------------------------

    @rule(side=st.sampled_from(Side), market=st.booleans(), awaits=AWAITS, trouble=st.sampled_from(Trouble))
    def submit(self, side: Side, market: bool, awaits: int | None, trouble: Trouble) -> None:
        key = uuid.uuid4().hex
        order_id = self.house.run(dying(self._submit(key, side, market), awaits))
        if order_id is None:
            # Nobody heard: its caller sends the same again.
            time.sleep(0.011)
            order_id = self.house.run(self._submit(key, side, market))
        if order_id is not None:
            self.submitted.add(order_id)
            self.venue.trouble = trouble

    @rule(side=st.sampled_from(Side), awaits=AWAITS)
    def submit_the_same_twice_at_once(self, side: Side, awaits: int | None) -> None:
        key = uuid.uuid4().hex

        async def both() -> list[Any]:
            tries = (dying(self._submit(key, side, True), awaits), self._submit(key, side, True))
            return await asyncio.gather(*tries, return_exceptions=True)

        found = {one for one in self.house.run(both()) if isinstance(one, str)}
        assert len(found) <= 1, "one key is one order"
        self.submitted |= found

    @rule(awaits=AWAITS, trouble=st.sampled_from(Trouble), twice=st.booleans())
    def sweep(self, awaits: int | None, trouble: Trouble, twice: bool) -> None:
        self.venue.trouble = trouble
        rows = self.house.run(self._rows())

        async def handle() -> None:
            for row in rows:
                tries = [dying(self._handled(row), awaits)]
                if twice:
                    tries.append(self._handled(row))
                await asyncio.gather(*tries)

        self.house.run(handle())

    @rule(awaits=AWAITS)
    def reconcile(self, awaits: int | None) -> None:
        self.house.run(dying(self._reconciled(), awaits))

    @rule(awaits=AWAITS, number=st.integers(0, 20))
    def cancel(self, awaits: int | None, number: int) -> None:
        if self.submitted:
            order_id = sorted(self.submitted)[number % len(self.submitted)]
            self.house.run(dying(self._canceled(order_id), awaits))

    @rule(awaits=AWAITS)
    def halt_and_resume(self, awaits: int | None) -> None:
        """Engage a kill switch, let somebody send and somebody enforce, and release it."""
        switch = self.house.run(self._engaged())
        before = self.venue.executions.total()
        for row in self.house.run(self._rows()):
            self.house.run(self._handled(row))
        assert self.venue.executions.total() == before, "something was sent behind a kill switch"
        self.house.run(dying(self.enforcer.enforce(), awaits))
        self.house.run(self._released(switch))

    @rule()
    def the_market_comes(self) -> None:
        self.venue.advance()

    @rule()
    def time_passes(self) -> None:
        self.house.run(self._aged())

    # -- what holds ----------------------------------------------------------------------------------

    @invariant()
    def nothing_executes_twice(self) -> None:
        assert all(count == 1 for count in self.venue.executions.values())

    @invariant()
    def every_order_is_there_and_not_overfilled(self) -> None:
        entries = self.house.run(self._entries())
        assert self.submitted <= entries.keys()
        assert all(one.filled_volume <= one.order.volume for one in entries.values())

    def teardown(self) -> None:
        self.house.run(self._healed())

    async def _healed(self) -> None:
        self.venue.trouble = Trouble.NONE
        for _ in range(HEALED_AFTER):
            if all(one.state in TERMINAL for one in (await self._entries()).values()):
                break
            await self._aged()
            for row in await self._rows():
                await self._handled(row)
            await self._reconciled()
            self.venue.advance()
        await self._reconciled()
        entries = await self._entries()
        open_ = {name: one.state for name, one in entries.items() if one.state not in TERMINAL}
        assert open_ == {}, "an order neither ended nor is known"
        for name, entry in entries.items():
            executed = sum(deal.volume for deal in self.venue.deals if deal.tag == name)
            assert entry.filled_volume == executed, (name, entry.state)
            assert (entry.state is OrderState.FILLED) == (executed == entry.order.volume), (name, entry.state)
        held = await self.house.hub["trading_reads"].positions(TENANT, self.name)
        assert sum(one.side.sign * one.volume for one in held) == self.venue.net()
        await self._legal(entries)
        trail = await self.house.hub["audit_archive"].entries(TENANT, after=0, limit=1_000_000)
        assert verify(TENANT, trail, [], Keyring([])).finding is None

    async def _legal(self, entries: dict[str, OrderEntry]) -> None:
        for name, entry in entries.items():
            state = OrderState.CREATED
            for event in await self.house.hub["trading_reads"].events(TENANT, name):
                assert event.old_state is state
                assert event.new_state is state or may_move(state, event.new_state)
                state = event.new_state
            assert state is entry.state

    # -- how -----------------------------------------------------------------------------------------

    async def _submit(self, key: str, side: Side, market: bool) -> str | None:
        request = IdempotentRequest(tenant=TENANT, subject="client:demo", key=key, fingerprint=b"f" * 32)
        try:
            order = Order(
                id=str(ULID()),
                tenant=TENANT,
                account=self.name,
                symbol=SYMBOL,
                side=side,
                type=OrderType.MARKET if market else OrderType.LIMIT,
                volume=VOLUME,
                price=None if market else LIMIT_PRICE,
                valid_for_ms=60_000,
            )
            async with self.idempotency.work(request) as work:
                await self.entrance.submit(work, order, actor="client:demo", traceparent="")
                await work.answer(StoredAnswer(status=202, headers={}, body=order.id.encode()))
        except AnsweredBefore as e:
            return e.answer.body.decode()
        except TickgateError:
            return None
        return order.id

    async def _rows(self) -> list[OutboxRow]:
        async with self.house.hub["postgres"].acquire() as connection:
            rows = await connection.fetch(
                "select order_id, command from order_outbox where account = $1 order by id", self.name
            )
        return [
            OutboxRow(
                id=0,
                tenant=TENANT,
                account=self.name,
                order=row["order_id"],
                command=Command(row["command"]),
                change=None,
                tries=1,
            )
            for row in rows
        ]

    async def _handled(self, row: OutboxRow) -> None:
        try:
            await self.dispatcher.handle(row)
        except TickgateError:
            return

    async def _reconciled(self) -> None:
        try:
            await self.reconciler.reconcile(await self._account())
        except TickgateError:
            return

    async def _canceled(self, order_id: str) -> None:
        try:
            async with self.ledger.work(TENANT) as work:
                await self.house.hub["risk_book"].hold(work)
                await self.changes.cancel(work, order_id, actor="client:demo")
        except TickgateError:
            return

    async def _engaged(self) -> str:
        async with self.ledger.work(TENANT) as work:
            switch = await self.house.hub["risk_book"].engage(
                work, SwitchScope.ACCOUNT, self.name, reason="test", author="test"
            )
        return str(switch.id)

    async def _released(self, switch: str) -> None:
        async with self.ledger.work(TENANT) as work:
            await self.house.hub["risk_book"].release(work, switch, author="test")

    async def _entries(self) -> dict[str, OrderEntry]:
        found = await self.house.hub["trading_reads"].orders(
            TENANT, before=None, limit=10_000, where={"account": self.name}
        )
        return {one.order.id: one for one in found if not one.external}

    async def _aged(self) -> None:
        """Let a minute pass for all that is measured by the database's clock, but for how fresh the account is."""
        async with self.house.hub["postgres"].acquire() as connection, connection.transaction():
            await connection.execute("set local session_replication_role = replica")
            await connection.execute(
                "update orders set sent_at = sent_at - interval '60 s', absent_since = absent_since - interval '60 s'"
                " where account = $1",
                self.name,
            )
            await connection.execute(
                "update order_outbox set due_at = due_at - interval '60 s' where account = $1", self.name
            )


@pytest.fixture(scope="module")
def shared(house: House) -> Any:
    opened = Ground(new_databases(house))
    yield opened
    opened.close()


def run(examples: int, steps: int = 12) -> None:
    run_state_machine_as_test(
        OrderMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=(Phase.explicit, Phase.generate),
            print_blob=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.timeout(250)
def test_no_order_of_events_breaks_an_order(shared: Ground) -> None:
    OrderMachine.house = shared
    run(EXAMPLES)


async def sent_beside_the_ledger(self: Dispatcher, tenant: str, order_id: str) -> Any:
    """Send what waits without writing first that it is being sent."""
    async with self.ledger.work(tenant) as work:
        entry = await self.ledger.locked(work, order_id)
        standing = await self.ledger.lock_account(work, entry.order.account)
    return (standing.account, entry) if entry.state is OrderState.QUEUED else None


async def sent_whoever_halts(self: Dispatcher, work: Any, entry: Any, now_ms: int) -> bool:
    return False


async def taken_for_refused(self: Dispatcher, of: Any, entry: Any) -> VenueReport:
    """Take silence for a refusal."""
    report = await ASK(self, of, entry)
    return replace(report, state=OrderState.REJECTED) if report.state is OrderState.UNKNOWN else report


async def absent_at_first_sight(self: Reconciler, work: Any, comparison: Any, entry: Any) -> None:
    """Take what one view does not show for what never arrived."""
    if entry.state is OrderState.UNKNOWN:
        await self._never_arrived(work, entry, comparison.now_ms)
    else:
        await ABSENT(self, work, comparison, entry)


ASK, ABSENT = Dispatcher._ask, Reconciler._absent
BUGS: Final[dict[str, tuple[Any, str, Any]]] = {
    "sent before that is written down": (Dispatcher, "_begin", sent_beside_the_ledger),
    "sent behind a kill switch": (Dispatcher, "_kept_back", sent_whoever_halts),
    "silence is a refusal": (Dispatcher, "_ask", taken_for_refused),
    "one look is proof": (Reconciler, "_absent", absent_at_first_sight),
}


@pytest.mark.timeout(250)
@pytest.mark.parametrize("bug", BUGS)
def test_the_machine_finds_an_injected_bug(shared: Ground, bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    OrderMachine.house = shared
    monkeypatch.setattr(*BUGS[bug])
    with pytest.raises((AssertionError, FlakyFailure, TickgateError)):
        run(300)
