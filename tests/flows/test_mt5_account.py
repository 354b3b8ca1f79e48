"""An order for a terminal's account: over HTTP, judged, sent by the worker, through bridge and connector, and back."""

import asyncio
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.bridges import build_bridge
from tests.connectors import SIMULATED, Connector, build_connector
from tests.engines import House, wait_for
from tests.orders import truth
from tests.trading_floors import SYMBOL, Floor, account, keep_records, running_floor


@dataclass
class Desk:
    floor: Floor
    connector: Connector

    def submit(self, **changes: Any) -> dict[str, Any]:
        fields = {"account": "terminal", "symbol": SYMBOL, "side": "buy", "type": "market", "volume": "0.1"}
        answer = self.floor.post("/v1/orders", {**fields, **changes})
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    def executions(self, order_id: str) -> int:
        return truth(self.connector.spool).executions.get(order_id, 0)

    def matched(self) -> bool:
        answer = self.floor.http.get("/v1/accounts/terminal/standing")
        return answer.status_code == 200 and bool(answer.json()["reconciled_at_ms"])

    def quoted(self) -> bool:
        answer = self.floor.http.get("/v1/quotes", params={"symbols": SYMBOL})
        return any(quote["utc_ms"] and quote["seq"] > 1 for quote in answer.json()["items"])


@pytest.fixture(scope="module")
def desk(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    root = tmp_path_factory.mktemp("mt5")
    with running_floor(root / "floor", house, send_timeout_s=9.0) as floor:
        bridge = build_bridge(floor.door.settings, root)
        connector = build_connector(
            bridge.port, root / "connector", SIMULATED, {"symbols": [SYMBOL]}, orders=True
        )
        bridge.start()
        connector.start()
        try:
            accounts = {"terminal": account(title="terminal", server="simulation", venue="mt5")}
            asyncio.run(keep_records(floor.door.settings, "demo", accounts, instrument=False))
            desk = Desk(floor, connector)
            wait_for(desk.matched, "the account being matched with its terminal")
            wait_for(desk.quoted, "quotes whose time is known")
            yield desk
        finally:
            connector.stop(signal.SIGKILL)
            bridge.stop(signal.SIGKILL)


def test_a_market_order_is_filled_by_the_terminal(desk: Desk) -> None:
    order = desk.floor.ended(desk.submit()["id"])
    assert (order["denials"], order["state"], order["retcode"]) == ([], "FILLED", 10_009)
    assert desk.executions(order["id"]) == 1
    fills = desk.floor.http.get("/v1/fills", params={"order": order["id"]}).json()["items"]
    assert [fill["volume"] for fill in fills] == ["0.1"]

    def held() -> list[tuple[str, str]]:
        items = desk.floor.http.get("/v1/positions", params={"account": "terminal"}).json()["items"]
        return [(one["side"], one["volume"]) for one in items]

    wait_for(lambda: held() == [("buy", "0.1")], "the position")


def test_a_limit_order_rests_in_the_terminal_and_is_changed_and_taken_back(desk: Desk) -> None:
    waiting = desk.submit(type="limit", price="1.07", volume="0.2")
    order = desk.floor.reaches(waiting["id"], "ACCEPTED")
    changed = desk.floor.post(f"/v1/orders/{order['id']}/modify", {"price": "1.0705"})
    assert changed.status_code == 202, changed.text
    wait_for(lambda: desk.floor.order(order["id"])["price"] == "1.0705", "the new price")
    wait_for(lambda: desk.floor.order(order["id"])["state"] == "ACCEPTED", "the order resting")
    assert desk.floor.post(f"/v1/orders/{order['id']}/cancel").status_code == 202
    assert desk.floor.ended(order["id"])["state"] == "CANCELED"
    assert desk.executions(order["id"]) == 1


def test_without_its_connector_an_order_is_surely_not_executed(desk: Desk) -> None:
    desk.connector.stop(signal.SIGKILL)
    try:
        order = desk.floor.ended(desk.submit(volume="0.3")["id"])
        assert (order["state"], order["code"]) == ("REJECTED", "TERMINAL_NOT_CONNECTED")
    finally:
        desk.connector.start()
    wait_for(lambda: desk.floor.ended(desk.submit(volume="0.4")["id"])["state"] == "FILLED", "the next order")
    assert desk.executions(order["id"]) == 0
