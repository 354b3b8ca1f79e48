"""An order over HTTP to a terminal that fails in every way it can: what becomes of it in the end, and what it did.

The whole way each time: gateway, trading worker, Redis, bridge, connector, terminal process, and the looks afterwards.
"""

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.bridges import Bridge, build_bridge
from tests.connectors import SIMULATED, Connector, build_connector
from tests.engines import House, wait_for
from tests.orders import truth
from tests.trading_floors import SYMBOL, Floor, account, keep_records, put_quote, running_floor

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


@pytest.fixture(scope="module")
def way(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    root = tmp_path_factory.mktemp("faults")
    with running_floor(root / "floor", house, send_timeout_s=6.0, absent_s=1.0) as floor:
        wide = {
            "submits_per_minute_max": 100_000,
            "duplicate_window_ms": 0,
            "consecutive_rejects_max": 100_000,
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


# fault: state in the end, code, executions, filled, whether nobody knew in between
ENDS: dict[str, tuple[dict[str, Any], str, str, int, str, bool]] = {
    "executed and timed out": ({"timeout": 1.0}, "FILLED", "", 1, "0.1", True),
    "rejected": ({"reject": 1.0}, "REJECTED", "VENUE_REFUSED", 0, "0", False),
    "delayed": ({"delay": 1.0, "delay_ms": 500}, "FILLED", "", 1, "0.1", False),
    "filled in part": ({"partial": 1.0}, "CANCELED", "", 1, "0.05", False),
    "executed and forgotten": ({"forget": 1.0}, "FILLED", "", 1, "0.1", True),
    "placed and then failed": ({"fail_after_placed": 1.0}, "REJECTED", "VENUE_REFUSED", 0, "0", False),
    "answered with nothing": ({"nothing": 1.0}, "EXPIRED", "NEVER_ARRIVED", 0, "0", True),
    "executed and disconnected": ({"disconnect": 1.0}, "FILLED", "", 1, "0.1", True),
    "executed and dead": ({"die": 1.0}, "FILLED", "", 1, "0.1", True),
    "dead before": ({"die_before": 1.0}, "EXPIRED", "NEVER_ARRIVED", 0, "0", True),
    "executed and hanging": ({"hang": 1.0}, "FILLED", "", 1, "0.1", True),
    "under another comment": ({"rewrite_comment": 1.0, "timeout": 1.0}, "FILLED", "", 1, "0.1", True),
}


@pytest.mark.parametrize("fault", ENDS)
def test_an_order_ends_as_its_terminal_has_it(way: Way, fault: str) -> None:
    faults, state, code, executions, filled, unknown = ENDS[fault]
    with way.terminal(faults={"orders": faults}) as connector:
        restarts = connector.status().get("terminal_restarts", 0)
        before = way.net()
        order_id = way.submit()
        order = way.floor.ended(order_id)
        assert (order["denials"], order["state"], order["code"]) == ([], state, code)
        assert truth(connector.spool).executions.get(order_id, 0) == executions
        assert way.filled(order_id) == Decimal(order["filled_volume"]) == Decimal(filled)
        assert ("UNKNOWN" in way.words(order_id)) == unknown
        wait_for(lambda: way.net() == before + Decimal(filled), "the position being the venue's")
        if unknown:
            alerts = [line for line in way.log().splitlines() if "order.unknown" in line]
            assert any(order_id in line for line in alerts), "a person is told"
        if "hang" in fault or "dead" in fault:
            # Its process was ended and another one answers.
            wait_for(
                lambda: (
                    connector.status().get("terminal_restarts", 0) > restarts
                    and connector.status().get("terminal") == "running"
                ),
                "the terminal's process being another one",
            )


def test_a_server_that_is_asked_too_often_loses_no_order_and_executes_none_twice(way: Way) -> None:
    with way.terminal(faults={"orders": {"per_second_max": 2}}) as connector:
        ids = [way.submit(volume=f"0.0{number}") for number in range(1, 7)]
        orders = [way.floor.ended(order_id) for order_id in ids]
        assert [order["state"] for order in orders] == ["FILLED"] * 6
        assert [truth(connector.spool).executions.get(order_id, 0) for order_id in ids] == [1] * 6
        assert "terminal.too_many_requests" in connector.log.read_text()


def test_a_terminal_that_is_signed_in_elsewhere_gets_no_order_and_a_person_is_told(way: Way) -> None:
    with way.terminal():
        assert way.floor.ended(way.submit())["state"] == "FILLED"
    said = way.log().count("terminal.wrong_account")
    with way.terminal(login=2, matched=False) as connector:
        wait_for(lambda: way.log().count("terminal.wrong_account") > said, "the alert", PATIENCE_S)
        order_id = way.submit()
        order = way.floor.ended(order_id)
        assert (order["state"], order["code"]) == ("REJECTED", "WRONG_ACCOUNT")
        assert order_id not in truth(connector.spool).executions


def test_an_account_that_hedges_holds_what_its_terminal_holds(way: Way) -> None:
    with way.terminal(hedging=True) as connector:
        asyncio.run(_quote(way))
        ids = [way.submit(account="hedge", volume="0.1") for _ in range(2)]
        assert [way.floor.ended(order_id)["state"] for order_id in ids] == ["FILLED"] * 2
        positions = way.floor.http.get("/v1/positions", params={"account": "hedge"}).json()["items"]
        assert [one["volume"] for one in positions] == ["0.1", "0.1"]
        asyncio.run(_quote(way))
        closing = way.submit(account="hedge", side="sell", position=positions[0]["ticket"], reduce_only=True)
        assert way.floor.ended(closing)["state"] == "FILLED"

        def held() -> list[str]:
            items = way.floor.http.get("/v1/positions", params={"account": "hedge"}).json()["items"]
            return [one["ticket"] for one in items]

        wait_for(lambda: held() == [positions[1]["ticket"]], "one position being left")
        assert [str(one.ticket) for one in truth(connector.spool).positions] == held()


async def _quote(way: Way) -> None:
    await put_quote(way.floor.door.settings, source="demo2")
