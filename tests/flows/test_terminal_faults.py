"""An order over HTTP to a terminal that fails in every way it can: what becomes of it in the end, and what it did.

The whole way each time: gateway, trading worker, Redis, bridge, connector, terminal process, and the looks afterwards.
"""

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from tests.engines import House, wait_for
from tests.orders import truth
from tests.terminal_ways import PATIENCE_S, Way, running_way
from tests.trading_floors import put_quote


@pytest.fixture(scope="module")
def way(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    with running_way(tmp_path_factory.mktemp("faults"), house) as opened:
        yield opened


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
        was_unknown = "UNKNOWN" in way.words(order_id)
        # A look may find what was executed before its sender has given up waiting for the answer.
        assert was_unknown == unknown or (unknown and executions and not was_unknown)
        wait_for(lambda: way.net() == before + Decimal(filled), "the position being the venue's")
        if was_unknown:
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
