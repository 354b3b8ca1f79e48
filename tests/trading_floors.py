"""A trading floor for tests: accounts on paper, an instrument, quotes as they are put there, and the trading worker."""

import asyncio
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
from ulid import ULID

from core.infrastructure.central_hub import open_hub
from core.model.ledger import Fill, OrderEntry
from core.model.orders import Order, OrderState, OrderType, Side
from core.model.records import Account, Instrument, RecordKind
from core.model.risk import Denial
from core.settings import Settings, TradingSettings
from core.trading.positions import applied
from tests.engines import House, free_port, wait_for
from tests.gateways import FrontDoor, Process, build, running
from tests.order_keys import write_order_keys

SYMBOL: Final = "EURUSD"
BID, ASK = 1.10000, 1.10010
INSTRUMENT = Instrument(
    symbol=SYMBOL,
    base_currency="EUR",
    profit_currency="USD",
    margin_currency="EUR",
    digits=5,
    tick_size="0.00001",
    contract_size="100000",
    volume_min="0.01",
    volume_max="100",
    volume_step="0.01",
)
ENDED = {"DENIED", "FILLED", "REJECTED", "CANCELED", "EXPIRED"}


def account(**changes: Any) -> Account:
    """Return a paper account in dollars, filled by the quotes of the source demo."""
    fields: dict[str, Any] = {
        "title": "paper",
        "login": 1,
        "server": "paper",
        "currency": "USD",
        "margin_mode": "netting",
        "venue": "paper",
        "source": "demo",
    }
    return Account(**{**fields, **changes})


async def keep_records(
    settings: Settings, tenant: str, accounts: dict[str, Account], *, instrument: bool = True
) -> None:
    """Keep accounts and the instrument as records of a tenant."""
    async with open_hub(settings, {"ledger_records"}) as hub:
        records = hub["ledger_records"]
        for name, body in accounts.items():
            await records.create(RecordKind.ACCOUNTS, tenant, name, body, version=uuid.uuid4().hex)
        if instrument:
            await records.create(
                RecordKind.INSTRUMENTS, tenant, SYMBOL.lower(), INSTRUMENT, version=uuid.uuid4().hex
            )


async def put_quote(settings: Settings, bid: float = BID, ask: float = ASK, source: str = "demo") -> None:
    """Put a quote of now where the bridge does."""
    now_ms = int(time.time() * 1_000)
    quote = {
        "symbol": SYMBOL,
        "source": source,
        "time_msc": now_ms,
        "utc_ms": now_ms,
        "bid": bid,
        "ask": ask,
        "last": 0.0,
        "volume": 0,
        "flags": 6,
        "epoch": 1,
        "seq": 1,
    }
    async with open_hub(settings, {"latest_quotes"}) as hub:
        await hub["latest_quotes"].put(source, {SYMBOL: msgspec.json.encode(quote)})


@dataclass
class Floor:
    """door: gateway and database worker; trading: the trading worker; http: signed in as demo."""

    door: FrontDoor
    trading: Process
    http: httpx.Client

    def quote(self, bid: float = BID, ask: float = ASK) -> None:
        asyncio.run(put_quote(self.door.settings, bid, ask))

    def post(self, path: str, body: dict[str, Any] | None = None, key: str = "") -> httpx.Response:
        headers = {"Idempotency-Key": key or str(uuid.uuid4())}
        return self.http.post(path, json=body, headers=headers)

    def submit(self, *, key: str = "", **changes: Any) -> dict[str, Any]:
        """Submit an order at a fresh quote: a market order to buy 0.1 lots unless told."""
        self.quote()
        fields = {"account": "paper", "symbol": SYMBOL, "side": "buy", "type": "market", "volume": "0.1"}
        answer = self.post("/v1/orders", {**fields, **changes}, key)
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    def order(self, order_id: str) -> dict[str, Any]:
        answer = self.http.get(f"/v1/orders/{order_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def ended(self, order_id: str) -> dict[str, Any]:
        """Wait until an order has ended, and return it."""
        wait_for(lambda: self.order(order_id)["state"] in ENDED, f"order {order_id} having ended")
        return self.order(order_id)

    def reaches(self, order_id: str, state: str) -> dict[str, Any]:
        wait_for(lambda: self.order(order_id)["state"] == state, f"order {order_id} being {state}")
        return self.order(order_id)


@contextmanager
def running_floor(root: Path, house: House, **trading: Any) -> Iterator[Floor]:
    """Run gateway, database worker and trading worker, with accounts `paper` (netting) and `hedged` (hedging)."""
    door = build(root, house)
    trading = {"sync_interval_ms": 100, "absent_s": 1.0, "send_timeout_s": 2.0, **trading}
    trading["key_file"] = str(write_order_keys(root)[0])
    settings = msgspec.structs.replace(door.settings, trading=TradingSettings(**trading))
    door.settings = settings
    text = msgspec.json.decode((root / "settings.json").read_bytes())
    text["trading"] = msgspec.to_builtins(settings.trading)
    (root / "settings.json").write_bytes(msgspec.json.encode(text))
    environment = {**door.worker.environment, "TICKGATE_WORKER_HEALTH_PORT": str(free_port())}
    worker = Process(["workers", "trading"], environment, root / "trading.log")
    with running(door, []), door.signed_in() as http:
        accounts = {"paper": account(), "hedged": account(margin_mode="hedging")}
        asyncio.run(keep_records(settings, "demo", accounts))
        asyncio.run(put_quote(settings))
        worker.start()
        floor = Floor(door, worker, http)
        try:
            wait_for(lambda: worker.check() or _is_matched(http), "accounts being matched with their venue")
            yield floor
        finally:
            worker.stop()


def _is_matched(http: httpx.Client) -> bool:
    answers = [http.get(f"/v1/accounts/{name}/standing") for name in ("paper", "hedged")]
    return all(answer.status_code == 200 and answer.json()["reconciled_at_ms"] for answer in answers)


def queued_order(settings: Settings, tenant: str, name: str) -> str:
    """Keep an order nobody will send, on an account that is there; return its id."""
    order = Order(
        id=str(ULID()),
        tenant=tenant,
        account=name,
        symbol=SYMBOL,
        side=Side.BUY,
        type=OrderType.LIMIT,
        volume=Decimal("0.1"),
        price=Decimal("1.05"),
    )
    entry = OrderEntry(order=order, state=OrderState.QUEUED, version=1, submitted_by="client:demo")

    async def keep() -> None:
        async with open_hub(settings, {"order_ledger"}) as hub, hub["order_ledger"].work(tenant) as work:
            await hub["order_ledger"].lock_account(work, name)
            await hub["order_ledger"].add(work, entry)

    asyncio.run(keep())
    return order.id


def approved_order(settings: Settings, tenant: str, name: str) -> str:
    """Keep an order that was denied for want of an approval, and the approval; return its id."""
    order = Order(
        id=str(ULID()),
        tenant=tenant,
        account=name,
        symbol=SYMBOL,
        side=Side.BUY,
        type=OrderType.MARKET,
        volume=Decimal("0.1"),
    )
    denial = Denial(check=14, code="APPROVAL_NEEDED", reason="r", numbers={})
    entry = OrderEntry(
        order=order, state=OrderState.DENIED, version=1, submitted_by="client:a", denials=(denial,)
    )

    async def keep() -> str:
        async with (
            open_hub(settings, {"order_ledger", "approvals"}) as hub,
            hub["order_ledger"].work(tenant) as work,
        ):
            await hub["order_ledger"].add(work, entry)
            granted = await hub["approvals"].grant(
                work, order.id, author="client:b", reason="r", valid_for_ms=60_000
            )
            return str(granted.id)

    return asyncio.run(keep())


def traded(settings: Settings, tenant: str, name: str) -> None:
    """Keep a fill and the position it made."""
    fill = Fill(
        account=name,
        deal="1",
        order=None,
        venue_order="7",
        position="1",
        symbol=SYMBOL,
        side=Side.BUY,
        volume=Decimal("0.1"),
        price=Decimal("1.1"),
        profit=Decimal(0),
        commission=Decimal(0),
        at_ms=1_790_000_000_000,
    )

    async def keep() -> None:
        async with open_hub(settings, {"order_ledger"}) as hub, hub["order_ledger"].work(tenant) as work:
            ledger = hub["order_ledger"]
            await ledger.lock_account(work, name)
            await ledger.record_fills(work, [fill])
            await ledger.hold(work, name, applied([], [fill], hedging=True))

    asyncio.run(keep())
