"""Orders through a real bridge and a real connector to the simulated terminal: each is executed at most once."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bridge.connector.simulated_book import STATE_FILE, Book
from core.errors.exceptions import Unavailable
from core.infrastructure.central_hub import open_hub
from core.model.orders import Order, OrderState, OrderType, Side
from core.model.venues import TradingAccount, VenueView
from core.ports.venues import Venue
from core.settings import Settings
from tests.bridges import SOURCE, TENANT, Bridge
from tests.connectors import SIMULATED, Connector, build_connector

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
ACCOUNT = TradingAccount(
    tenant=TENANT,
    id="a1",
    venue="mt5",
    source=SOURCE,
    currency="USD",
    leverage=100,
    hedging=False,
)


def new_tag() -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(26))


def order(**changes: Any) -> Order:
    fields: dict[str, Any] = {
        "id": new_tag(),
        "tenant": TENANT,
        "account": ACCOUNT.id,
        "symbol": "EURUSD",
        "side": Side.BUY,
        "type": OrderType.MARKET,
        "volume": Decimal("0.10"),
    }
    return Order(**{**fields, **changes})


@contextmanager
def running_connector(bridge: Bridge, directory: Path, **options: Any) -> Iterator[Connector]:
    connector = build_connector(bridge.port, directory, SIMULATED, {"rate": 20.0, **options}, orders=True)
    connector.start()
    try:
        yield connector
    finally:
        connector.stop()


@asynccontextmanager
async def opened_venue(settings: Settings) -> AsyncIterator[Venue]:
    async with open_hub(settings, {"mt5_venue"}) as hub:
        yield hub["mt5_venue"]


async def until_viewed(venue: Venue, timeout_s: float = 30.0) -> VenueView:
    """Return the first view: then bridge, connector and terminal are there, and the clock is measured."""
    async with asyncio.timeout(timeout_s):
        while True:
            try:
                return await venue.view(ACCOUNT, 0)
            except Unavailable:
                await asyncio.sleep(0.1)


def truth(connector: Connector) -> Book:
    return msgspec.json.decode((connector.spool / STATE_FILE).read_bytes(), type=Book)


def test_a_market_order_is_filled_in_the_terminal(bridge: Bridge, tmp_path: Path) -> None:
    async def run() -> None:
        async with opened_venue(bridge.settings) as venue:
            with pytest.raises(Unavailable) as nobody:
                await venue.send(ACCOUNT, order())
            assert nobody.value.code == "TERMINAL_NOT_CONNECTED"
            with running_connector(bridge, tmp_path / "connector") as connector:
                await until_viewed(venue)
                bought = order()
                report = await venue.send(ACCOUNT, bought)
                assert (report.state, report.retcode, report.code) == (OrderState.FILLED, 10_009, "")
                assert [deal.volume for deal in report.deals] == [Decimal("0.1")]
                assert report.deals[0].tag == bought.id
                view = await venue.view(ACCOUNT, 0)
                assert [position.tag for position in view.positions] == [bought.id]
                assert [(one.tag, one.state) for one in view.ended] == [(bought.id, OrderState.FILLED)]
                assert view.deals == report.deals
                assert truth(connector).executions == {bought.id: 1}

    asyncio.run(run())
