"""An order's whole way: over HTTP, judged, sent by the trading worker, filled on paper, and back."""

from collections.abc import Iterator
from decimal import Decimal

import pytest
import redis

from tests.engines import House, wait_for
from tests.trading_floors import ASK, BID, SYMBOL, Floor, running_floor


@pytest.fixture(scope="module")
def floor(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Floor]:
    with running_floor(tmp_path_factory.mktemp("orders"), house) as running:
        yield running


def test_a_market_order_is_filled_at_the_ask_and_leaves_its_trace(floor: Floor) -> None:
    submitted = floor.submit(volume=0.2, client_order_id="first")
    assert submitted["state"] == "QUEUED"
    order = floor.ended(submitted["id"])
    assert (order["state"], order["filled_volume"], order["average_price"]) == ("FILLED", "0.2", str(ASK)[:6])
    events = floor.http.get(f"/v1/orders/{order['id']}/events").json()["items"]
    assert [event["to"] for event in events] == ["QUEUED", "SENDING", "FILLED"]
    assert len({event["trace_id"] for event in events}) == 1
    fills = floor.http.get("/v1/fills", params={"order": order["id"]}).json()["items"]
    assert [(fill["volume"], fill["side"]) for fill in fills] == [("0.2", "buy")]
    positions = floor.http.get("/v1/positions", params={"account": "paper"}).json()["items"]
    assert [(one["symbol"], one["side"], one["volume"]) for one in positions] == [(SYMBOL, "buy", "0.2")]


def test_a_limit_order_waits_for_its_price_and_can_be_changed_and_taken_back(floor: Floor) -> None:
    waiting = floor.submit(type="limit", price="1.09", volume="0.1")
    floor.reaches(waiting["id"], "ACCEPTED")
    changed = floor.post(f"/v1/orders/{waiting['id']}/modify", {"price": "1.0905"})
    assert changed.status_code == 202, changed.text
    wait_for(lambda: floor.order(waiting["id"])["price"] == "1.0905", "the new price")
    assert floor.order(waiting["id"])["state"] == "ACCEPTED"
    refused = floor.post(f"/v1/orders/{waiting['id']}/modify", {"price": "1.09051234"})
    assert (refused.status_code, refused.json()["code"]) == (422, "PRICE_STEP")
    assert "1.09051234" in refused.json()["detail"]
    assert floor.post(f"/v1/orders/{waiting['id']}/cancel").status_code == 202
    assert floor.ended(waiting["id"])["state"] == "CANCELED"
    again = floor.post(f"/v1/orders/{waiting['id']}/cancel")
    assert (again.status_code, again.json()["state"]) == (202, "CANCELED")


def test_a_limit_order_is_filled_when_the_market_comes_to_it(floor: Floor) -> None:
    waiting = floor.submit(type="limit", price="1.0950", volume="0.1")
    floor.reaches(waiting["id"], "ACCEPTED")
    floor.quote(1.09480, 1.09490)
    order = floor.ended(waiting["id"])
    assert (order["state"], order["average_price"]) == ("FILLED", "1.0949")


def test_the_same_key_is_one_order(floor: Floor) -> None:
    first = floor.submit(key="the-same-key-twice", volume="0.03")
    second = floor.submit(key="the-same-key-twice", volume="0.03")
    assert first["id"] == second["id"]
    assert floor.ended(first["id"])["state"] == "FILLED"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"volume": "0.015"}, "VOLUME_STEP"),
        ({"volume": "11"}, "VOLUME_LIMIT"),
        ({"symbol": "XXXYYY"}, "SYMBOL_UNKNOWN"),
        ({"type": "limit", "price": "0.5"}, "PRICE_COLLAR"),
        ({"stop_loss": "1.2"}, "STOP_SIDE"),
        ({"side": "sell", "reduce_only": True, "volume": "5"}, "NOT_REDUCING"),
    ],
)
def test_a_denied_order_says_why(floor: Floor, changes: dict[str, object], code: str) -> None:
    denied = floor.submit(**changes)
    assert denied["state"] == "DENIED"
    assert code in {denial["code"] for denial in floor.order(denied["id"])["denials"]}
    assert all(denial["numbers"] is not None for denial in denied["denials"])


def test_twins_are_denied(floor: Floor) -> None:
    first, second = floor.submit(volume="0.07"), floor.submit(volume="0.07")
    assert first["state"] == "QUEUED"
    assert [denial["code"] for denial in second["denials"]] == ["DUPLICATE_ORDER"]


def test_the_account_stands_as_its_deals_make_it(floor: Floor) -> None:
    bought = floor.submit(account="hedged", volume="0.5")
    position = floor.ended(bought["id"])
    ticket = floor.http.get("/v1/fills", params={"order": position["id"]}).json()["items"][0]["position"]
    floor.quote()
    closed = floor.submit(account="hedged", side="sell", volume="0.5", position=ticket, reduce_only=True)
    assert floor.ended(closed["id"])["state"] == "FILLED"
    expected = 100_000 + (Decimal(str(BID)) - Decimal(str(ASK))) * 50_000

    def balance() -> str:
        return str(floor.http.get("/v1/accounts/hedged/standing").json()["balance"])

    wait_for(lambda: Decimal(balance()) == expected, "the balance")
    assert floor.http.get("/v1/positions", params={"account": "hedged"}).json()["items"] == []


def test_an_account_tells_how_it_stands_and_stays_once_it_has_traded(floor: Floor) -> None:
    account = floor.http.get("/v1/accounts/paper")
    assert account.json()["standing"]["balance"] is not None
    refused = floor.http.delete("/v1/accounts/paper", headers={"If-Match": "*"})
    assert (refused.status_code, refused.json()["code"]) == (409, "RECORD_IN_USE")


def test_what_happens_is_streamed_and_a_reader_goes_on_where_it_was(floor: Floor) -> None:
    order = floor.ended(floor.submit(volume="0.05")["id"])
    trail = floor.http.get("/v1/audit", params={"order": order["id"]}).json()["items"]
    what = [one["event"]["type"] for one in trail]
    # A look at the account between the venue's answer and its being written down tells the same.
    assert what[:-1] == ["order.submitted", "order.sending", "order.fill"]
    assert what[-1] in {"order.reported", "order.reconciled"}
    assert {one["event"]["trace"][3:35] for one in trail if one["event"]["trace"]} == {order["trace_id"]}

    def read(count: int, headers: dict[str, str]) -> list[str]:
        lines = []
        with floor.http.stream("GET", "/v1/orders/stream", headers=headers) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            for line in answer.iter_lines():
                if line.startswith(("id: ", "event: ")):
                    lines.append(line)
                if len(lines) == 2 * count:
                    return lines
        return lines

    begin = str(trail[0]["seq"] - 1)
    seen = read(4, {"Last-Event-ID": begin})
    assert [line.removeprefix("event: ") for line in seen if line.startswith("event: ")] == what
    again = read(3, {"Last-Event-ID": str(trail[0]["seq"])})
    assert again == seen[2:]


def test_events_come_as_they_are_committed_also_while_connections_are_cut(floor: Floor) -> None:
    newest = floor.http.get("/v1/audit", params={"limit": 1_000}).json()["items"][-1]["seq"]
    server = floor.door.settings.redis
    told: list[int] = []
    with (
        floor.door.signed_in() as reading,
        reading.stream("GET", "/v1/orders/stream", params={"after": newest}) as answer,
        redis.Redis(server.host, server.port, password=server.password.reveal()) as client,
    ):
        lines = answer.iter_lines()
        for turn in range(6):
            order = floor.submit(type="limit", price=f"1.08{turn}5", volume="0.02")["id"]
            if turn % 2:
                client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            for line in lines:
                if line.startswith("id: "):
                    told.append(int(line.removeprefix("id: ")))
                if line.startswith("data: ") and order in line:
                    break
    page = floor.http.get("/v1/audit", params={"cursor": newest, "limit": 1_000}).json()["items"]
    kept = [one["seq"] for one in page if one["event"]["type"].startswith("order.")]
    assert told == kept[: len(told)]
    assert len(told) >= 6
    for one in floor.http.get("/v1/orders", params={"state": "ACCEPTED"}).json()["items"]:
        floor.post(f"/v1/orders/{one['id']}/cancel")
