"""A tenant of the order machine: its accounts, everything that acts on their orders, and what was asked of them.

The code is the product's, the ledger a real PostgreSQL; the venue keeps the truth in memory. Each example has a tenant
of its own, so that one's history slows no other down.
"""

import asyncio
import time
import uuid
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

import asyncpg
import msgspec
from structlog.testing import LogCapture
from ulid import ULID

from core.adapters.postgres.idempotency import PostgresIdempotency
from core.adapters.postgres.order_rows import outbox_row_of
from core.errors.exceptions import Defect, TickgateError
from core.infrastructure.central_hub import Hub, open_hub
from core.model.ledger import OutboxRow
from core.model.orders import Order, OrderState, OrderType, Side, may_move
from core.model.records import RecordKind
from core.model.risk import LimitScope, SwitchScope
from core.model.venues import OrderChange, TradingAccount
from core.ports.idempotency import AnsweredBefore, IdempotentRequest, StoredAnswer
from core.settings import Settings
from core.trading.changes import OrderChanges
from core.trading.dispatch import Dispatcher
from core.trading.enforcement import Enforcer
from core.trading.reconciliation import Patience, Reconciler
from core.trading.settling import Settlement
from core.trading.submission import OrderEntrance
from tests.trading_floors import INSTRUMENT, SYMBOL, account
from tests.trading_truth import TruthVenue

NEEDS: Final = {
    "order_ledger",
    "risk_book",
    "audit",
    "audit_archive",
    "ledger_records",
    "postgres",
}
LIMITS: Final = {
    "submits_per_minute_max": 1_000_000,
    "duplicate_window_ms": 0,
    "consecutive_rejects_max": 1_000_000,
}
VOLUME, PRICES = Decimal("0.1"), (Decimal("1.09"), Decimal("1.095"), Decimal("1.105"))
VALID_FOR_MS: Final = 30_000
PATIENCE: Final = Patience(sending_s=15, absent_s=30)
NETTING, HEDGING = "netting", "hedging"
CALLER: Final = "client:demo"
_BROKEN: Final = "update orders set state = $3, version = version + 1 where tenant = $1 and id = $2"
_S = OrderState


class Actor(StrEnum):
    """Who may do something at any moment."""

    WORKER = "a worker does what the outbox says"
    RECONCILER = "a worker compares both accounts with their venue"
    HOLDER = "a worker compares an account that it holds meanwhile"
    CANCELER = "a caller takes an order back"
    MODIFIER = "a caller changes an order"
    ENFORCER = "somebody halts an account, has it enforced, and lets it go on"
    MARKET = "the market comes to everything that waits for it"
    REJECTER = "the venue rejects what it has taken"
    LOSER = "the venue loses an order"
    LATE_TELLER = "the venue tells of a fill that came before the cancellation"
    STRANGER = "somebody else puts an order there"


class Quoted:
    """A market that stands still, and is always fresh. wiped: Redis is empty."""

    wiped = False

    async def get(self, _source: str, symbols: Sequence[str] | None) -> Mapping[str, bytes]:
        if self.wiped:
            return {}
        now_ms = int(time.time() * 1_000)
        quote = msgspec.json.encode({"bid": 1.1, "ask": 1.1001, "utc_ms": now_ms})
        return dict.fromkeys(symbols or (), quote)


class Ground:
    """What every example shares: the ledger, the loop everything runs in, and all that settling has logged."""

    def __init__(self, of: Settings) -> None:
        self.loop = asyncio.new_event_loop()
        self.alerts = LogCapture()
        self._opened = open_hub(of, NEEDS)
        self.hub: Hub = self.run(self._opened.__aenter__())

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(coroutine)

    def close(self) -> None:
        self.run(self._opened.__aexit__(None, None, None))
        self.loop.close()


@dataclass(frozen=True, kw_only=True)
class Wish:
    """An order somebody wants. valid: for so long alone."""

    account: str
    side: Side
    market: bool
    valid: bool = True
    position: str = ""


class OrderWorld:
    """submitted: ids that were answered 202; cancels: of orders whose cancellation was taken in."""

    def __init__(self, ground: Ground) -> None:
        hub = self.hub = ground.hub
        self.tenant = uuid.uuid4().hex[:12]
        self.venue = TruthVenue()
        self.quotes = Quoted()
        self.submitted: set[str] = set()
        self.cancels: set[str] = set()
        self.accounts: dict[str, TradingAccount] = {}
        self.alerts = ground.alerts
        self.ledger, self.risk = hub["order_ledger"], hub["risk_book"]
        self.settlement = Settlement(ledger=self.ledger, audit=hub["audit"])
        self.entrance = OrderEntrance(
            desk=self.ledger, risk=self.risk, audit=hub["audit"], quotes=self.quotes
        )
        self.changes = OrderChanges(ledger=self.ledger, settlement=self.settlement, entrance=self.entrance)
        venues = {"paper": self.venue}
        self.dispatcher = Dispatcher(
            ledger=self.ledger,
            risk=self.risk,
            settlement=self.settlement,
            venues=venues,
            send_timeout_s=60.0,
        )
        self.reconciler = Reconciler(
            ledger=self.ledger,
            settlement=self.settlement,
            venues=venues,
            quotes=self.quotes,
            patience=PATIENCE,
            new_id=lambda: str(ULID()),
        )
        self.enforcer = Enforcer(ledger=self.ledger, risk=self.risk, settlement=self.settlement)
        self.idempotency = PostgresIdempotency(hub["postgres"], 3_600)

    async def begin(self) -> None:
        """Open a netting account beside a hedging one."""
        self.alerts.entries.clear()
        source, records = f"s{self.tenant}", self.hub["ledger_records"]
        async with self.hub["postgres"].acquire() as connection:
            await connection.execute(
                "insert into sources (name, tenant, token_hash) values ($1, $2, repeat('0', 64))",
                source,
                self.tenant,
            )
        await records.create(
            RecordKind.INSTRUMENTS, self.tenant, "eurusd", INSTRUMENT, version=uuid.uuid4().hex
        )
        for name in (NETTING, HEDGING):
            body = account(margin_mode=name, source=source)
            await records.create(RecordKind.ACCOUNTS, self.tenant, name, body, version=uuid.uuid4().hex)
        async with self.ledger.work(self.tenant) as work:
            await self.risk.set_limits(
                work, LimitScope.TENANT, "", dict(LIMITS), expected=None, author="test"
            )
        for name in (NETTING, HEDGING):
            self.accounts[name] = TradingAccount(
                tenant=self.tenant,
                id=name,
                venue="paper",
                source=source,
                currency="USD",
                leverage=100,
                hedging=name == HEDGING,
            )
        await self.reconcile()

    # -- callers -------------------------------------------------------------------------------------

    async def submit(self, key: str, wish: Wish) -> str | None:
        """Submit under a key; return the order's id, None where that was not answered."""
        request = IdempotentRequest(tenant=self.tenant, subject=CALLER, key=key, fingerprint=b"f" * 32)
        order = Order(
            id=str(ULID()),
            tenant=self.tenant,
            account=wish.account,
            symbol=SYMBOL,
            side=wish.side,
            type=OrderType.MARKET if wish.market else OrderType.LIMIT,
            volume=VOLUME,
            price=None if wish.market else PRICES[0],
            position=wish.position,
            valid_for_ms=VALID_FOR_MS if wish.valid else None,
        )
        try:
            async with self.idempotency.work(request) as work:
                await self.entrance.submit(work, order, actor=CALLER, traceparent="")
                await work.answer(StoredAnswer(status=202, headers={}, body=order.id.encode()))
        except AnsweredBefore as e:
            return e.answer.body.decode()
        except Defect:
            raise
        except TickgateError:
            return None
        return order.id

    async def cancel(self, order_id: str) -> None:
        async with self.ledger.work(self.tenant) as work:
            await self.risk.hold(work)
            after = await self.changes.cancel(work, order_id, actor=CALLER)
        if after.state is _S.PENDING_CANCEL:
            self.cancels.add(order_id)

    async def modify(self, order_id: str, price: Decimal) -> None:
        async with self.ledger.work(self.tenant) as work:
            await self.changes.modify(work, order_id, OrderChange(price=price), actor=CALLER)

    # -- the worker ----------------------------------------------------------------------------------

    async def rows(self, account: str = "") -> list[OutboxRow]:
        """Return what is to be done, whoever else is doing it already."""
        async with self.hub["postgres"].acquire() as connection:
            rows = await connection.fetch(
                "select * from order_outbox where tenant = $1 and $2 in ('', account) order by id",
                self.tenant,
                account,
            )
        return [outbox_row_of(row) for row in rows]

    async def sweep(self) -> None:
        for row in await self.rows():
            await refused(self.dispatcher.handle(row))

    async def reconcile(self) -> None:
        for one in self.accounts.values():
            await refused(self.reconciler.reconcile(one))

    async def act(self, actor: Actor, number: int) -> None:
        """Do what somebody does. number: of the order or account it is done to."""
        working = [one.tag for book in self.venue.books.values() for one in book.working.values() if one.tag]
        chosen = _chosen([*working, *working, *sorted(self.submitted)], number) or ""
        match actor:
            case Actor.WORKER:
                await self.sweep()
            case Actor.RECONCILER:
                await self.reconcile()
            case Actor.HOLDER:
                # Whoever acts within its view would wait for it.
                self.venue.meanwhile = None
                await refused(self.reconciler.reconcile_held(self.accounts[(NETTING, HEDGING)[number % 2]]))
            case Actor.CANCELER if chosen:
                await refused(self.cancel(chosen))
            case Actor.MODIFIER if chosen:
                await refused(self.modify(chosen, PRICES[1 + number % 2]))
            case Actor.ENFORCER:
                switch = await self.engage(SwitchScope.ACCOUNT, (NETTING, HEDGING)[number % 2])
                try:
                    await self.enforcer.enforce()
                finally:
                    await asyncio.shield(self.release(switch))
            case Actor.MARKET:
                self.venue.advance()
            case _:
                self._venue_acts(actor, number)

    def _venue_acts(self, actor: Actor, number: int) -> None:
        books = self.venue.books.values()
        working = _chosen([(book, ticket) for book in books for ticket in sorted(book.working)], number)
        canceled = _chosen(
            [(book, one) for book in books for one, o in book.ended.items() if o.state is _S.CANCELED], number
        )
        match actor:
            case Actor.REJECTER if working:
                self.venue.reject(*working)
            case Actor.LOSER if working:
                self.venue.lose(*working)
            case Actor.LATE_TELLER if canceled:
                self.venue.fill_what_was_taken_back(*canceled, 1 + number % 3 % 2)
            case Actor.STRANGER:
                self.venue.place_for_a_stranger(self.accounts[(NETTING, HEDGING)[number % 2]], PRICES[0])

    # -- whoever halts -------------------------------------------------------------------------------

    async def engage(self, scope: SwitchScope, target: str) -> str:
        async with self.ledger.work(self.tenant) as work:
            switch = await self.risk.engage(work, scope, target, reason="test", author="test")
        return str(switch.id)

    async def release(self, switch: str) -> None:
        async with self.ledger.work(self.tenant) as work:
            await self.risk.release(work, switch, author="test")

    # -- time, and who breaks the rules --------------------------------------------------------------

    async def minute(self) -> None:
        """Let a minute pass for all that is measured by the database's clock, but for how fresh an account is."""
        async with self.hub["postgres"].acquire() as connection, connection.transaction():
            await connection.execute("set local session_replication_role = replica")
            await connection.execute(
                "update orders set sent_at = sent_at - interval '60 s', absent_since = absent_since - interval '60 s',"
                " submitted_at = submitted_at - interval '60 s' where tenant = $1",
                self.tenant,
            )
            await connection.execute(
                "update order_outbox set due_at = due_at - interval '60 s' where tenant = $1", self.tenant
            )

    async def break_the_rules(self, order_id: str, state: OrderState) -> list[str]:
        """Try an illegal move past the code and past the database; return what let it through."""
        passed = ""
        try:
            async with self.ledger.work(self.tenant) as work:
                entry = await self.ledger.locked(work, order_id)
                if may_move(entry.state, state) or entry.state is state:
                    return []
                await self.settlement.move(work, entry, state, what="order.broken")
                passed = "code"
        except Defect:
            pass
        try:
            async with self.hub["postgres"].acquire() as connection:
                await connection.execute(_BROKEN, self.tenant, order_id, state)
                passed += " database"
        except Defect as e:
            if not isinstance(e.__cause__, asyncpg.CheckViolationError):
                raise
        return [f"{order_id} goes from {entry.state} to {state} past {passed}"] if passed else []


def _chosen(ones: Sequence[Any], number: int) -> Any:
    return ones[number % len(ones)] if ones else None


async def refused(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Return what it does, None where it is refused or cannot be done now. Raises: Defect."""
    try:
        return await coroutine
    except Defect:
        raise
    except TickgateError:
        return None
