"""The floor under an order: the statements our own adapters send for one, recorded, and sent again without any of us.

Every statement once and prepared, in one transaction, on one connection with our settings, with the names an order has
of its own made anew each time. What is left out is what lies around them: HTTP, credentials, judging.
"""

import asyncio
import secrets
import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import asyncpg
from ulid import ULID

from core.adapters.postgres.pool import connect
from core.infrastructure.central_hub import open_hub
from core.model.orders import Order, OrderType, Side
from core.ports.idempotency import IdempotentRequest, StoredAnswer
from core.settings import Settings
from core.trading.submission import OrderEntrance
from tests.trading_floors import SYMBOL

TENANT: Final = "rival"
"""Nobody else writes its audit trail meanwhile."""
ANSWER_BYTES: Final = 1_200

Statement = tuple[str, tuple[Any, ...]]


def order_for(account: str) -> Order:
    return Order(
        id=str(ULID()),
        tenant=TENANT,
        account=account,
        symbol=SYMBOL,
        side=Side.BUY,
        type=OrderType.MARKET,
        volume=Decimal("0.01"),
        valid_for_ms=5_000,
    )


class Recorded:
    """One submission as it was sent. opening: of its transaction; sent: how many messages it took, commits and all."""

    def __init__(self, said: Sequence[Statement], order: str, account: str) -> None:
        self._opening = next(text for text, _ in said if "set_config" in text)
        self.statements = [one for one in said if "set_config" not in one[0] and one[0] != "commit"]
        self.sent = len(said)
        self._order = order
        self._account = account

    async def play(self, connection: asyncpg.Connection, account: str) -> None:
        """Do the same for another order of `account`."""
        order, key, seq = str(ULID()), secrets.token_bytes(32), 0
        fresh: dict[Any, Any] = {self._order: order, self._account: account}
        await connection.execute(self._opening)
        for text, args in self.statements:
            values = [
                key
                if isinstance(value, bytes) and "idempotency_keys" in text and position == 2
                else fresh.get(value, value)
                if isinstance(value, str)
                else value
                for position, value in enumerate(args)
            ]
            if "into audit_events" in text:
                values[1] = seq
            if not args:
                await connection.execute(text)
                continue
            found = await connection.fetch(text, *values)
            if "from audit_heads" in text:
                seq = found[0]["seq"] + 1
        await connection.execute("commit")


async def record(settings: Settings, account: str) -> Recorded:
    """Submit an order as the gateway does, and write down what the ledger is sent."""
    said: list[Statement] = []

    def write_down(query: Any) -> None:
        said.append((query.query, tuple(query.args or ())))

    names = {"postgres", "idempotency", "order_ledger", "risk_book", "audit", "latest_quotes"}
    async with open_hub(settings, names) as hub:
        entrance = OrderEntrance(
            desk=hub["order_ledger"],
            risk=hub["risk_book"],
            audit=hub["audit"],
            quotes=hub["latest_quotes"],
        )
        await _submit(hub, entrance, order_for(account))  # what only the first order of all does
        async with hub["postgres"].pool.acquire() as connection:
            connection.add_query_logger(write_down)
        order = order_for(account)
        await _submit(hub, entrance, order)
    return Recorded(said, order.id, account)


async def _submit(hub: Any, entrance: OrderEntrance, order: Order) -> None:
    request = IdempotentRequest(
        tenant=TENANT, subject="client:bench", key=secrets.token_hex(16), fingerprint=secrets.token_bytes(32)
    )
    async with hub["idempotency"].work(request) as work:
        entry = await entrance.submit(work, order, actor="client:bench", traceparent="")
        assert not entry.denials, entry.denials
        answer = StoredAnswer(
            status=202, headers={"content-type": "application/json"}, body=b"x" * ANSWER_BYTES
        )
        await work.answer(answer)


async def played(
    settings: Settings, recorded: Recorded, accounts: Sequence[str], connections: int, seconds: float
) -> list[float]:
    """Play it over and over on so many connections for so long; return what each took, in ms."""
    links = [await connect(settings.postgres, "tickgate-floor") for _ in range(connections)]
    took: list[float] = []
    try:
        for number, link in enumerate(links):
            await recorded.play(link, accounts[number % len(accounts)])  # prepares
        until = time.perf_counter() + seconds
        await asyncio.gather(
            *(_player(recorded, link, accounts, n, until, took) for n, link in enumerate(links))
        )
        await _tidy(links[0])
    finally:
        for link in links:
            await link.close()
    return took


async def _player(
    recorded: Recorded,
    link: asyncpg.Connection,
    accounts: Sequence[str],
    number: int,
    until: float,
    took: list[float],
) -> None:
    turn = number
    while time.perf_counter() < until:
        began = time.perf_counter()
        await recorded.play(link, accounts[turn % len(accounts)])
        took.append((time.perf_counter() - began) * 1_000)
        turn += 16


async def _tidy(link: asyncpg.Connection) -> None:
    """Take away what nobody shall send."""
    for table in ("order_outbox", "order_events", "orders"):
        await link.execute(f"delete from {table} where tenant = $1", TENANT)
