"""The whole way of an order to a terminal, for tests: gateway, worker, bridge, and a terminal as one wants it."""

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.bridges import Bridge, build_bridge
from tests.connectors import SIMULATED, Connector, build_connector
from tests.engines import House, wait_for
from tests.trading_floors import SYMBOL, Floor, account, keep_records, running_floor

PATIENCE_S = 40.0


@dataclass
class Way:
    """directory: of the terminal, whichever connector runs it: what it has done is remembered there."""

    floor: Floor
    bridge: Bridge
    directory: Path

    @contextmanager
    def terminal(self, *, matched: bool = True, hedging: bool = False, **options: Any) -> Iterator[Connector]:
        """Run a connector whose terminal has these options, and wait until its account has been matched with it."""
        connector = build_connector(
            self.bridge.port,
            self.directory / ("hedging" if hedging else "netting"),
            SIMULATED,
            {"symbols": [SYMBOL], "rate": 5.0, "hedging": hedging, **options},
            orders=True,
            call_timeout_s=1.5,
            **({"source": "demo2", "token": "t"} if hedging else {}),
        )
        connector.start()
        try:
            if matched:
                since_ms = time.time() * 1_000
                name = "hedge" if hedging else "terminal"
                wait_for(lambda: self.viewed_at_ms(name) > since_ms, "the account being matched", PATIENCE_S)
            yield connector
        finally:
            connector.stop(signal.SIGKILL)

    def viewed_at_ms(self, name: str) -> int:
        answer = self.floor.http.get(f"/v1/accounts/{name}/standing")
        return int(answer.json()["reconciled_at_ms"] or 0) if answer.status_code == 200 else 0

    def submit(self, **changes: Any) -> str:
        return str(self.floor.submit(**{"account": "terminal", **changes})["id"])

    def words(self, order_id: str) -> list[str]:
        answer = self.floor.http.get(f"/v1/orders/{order_id}/events")
        return [event["to"] for event in answer.json()["items"]]

    def filled(self, order_id: str) -> Decimal:
        items = self.floor.http.get("/v1/fills", params={"order": order_id}).json()["items"]
        return sum((Decimal(fill["volume"]) for fill in items), Decimal(0))

    def net(self, name: str = "terminal") -> Decimal:
        items = self.floor.http.get("/v1/positions", params={"account": name}).json()["items"]
        return sum(
            (Decimal(one["volume"]) * (1 if one["side"] == "buy" else -1) for one in items), Decimal(0)
        )

    def log(self) -> str:
        return self.floor.trading.log.read_text()


@contextmanager
def running_way(root: Path, house: House) -> Iterator[Way]:
    """Run all of it but a connector, with the accounts `terminal` (netting) and `hedge` (hedging)."""
    with running_floor(root / "floor", house, send_timeout_s=6.0, absent_s=1.0) as floor:
        wide = {
            "submits_per_minute_max": 100_000,
            "duplicate_window_ms": 0,
            "consecutive_rejects_max": 100_000,
            "collar_share": "0.1",
        }
        put = floor.http.put("/v1/risk-limits/tenant/-", json=wide, headers={"If-Match": "*"})
        assert put.status_code == 200, put.text
        bridge = build_bridge(floor.door.settings, root, lease_ttl_s=2.0)
        bridge.start()
        bodies = {
            "terminal": account(title="terminal", server="simulation", venue="mt5"),
            "hedge": account(
                title="hedge", server="simulation", venue="mt5", source="demo2", margin_mode="hedging"
            ),
        }
        asyncio.run(keep_records(floor.door.settings, "demo", bodies, instrument=False))
        try:
            yield Way(floor, bridge, root / "terminals")
        finally:
            bridge.stop(signal.SIGKILL)
