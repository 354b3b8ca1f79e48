"""Approvals: one denied order, submitted again once, by four eyes, and written down."""

import asyncio
import concurrent.futures
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from core.infrastructure.provisioning import NewClient, provision
from core.settings import Secret
from tests.engines import House, wait_for
from tests.gateways import SCOPES, SECRET
from tests.trading_floors import Floor, running_floor

LIMITS = "/v1/risk-limits/strategy/-"
HELD = "held/back"


@pytest.fixture(scope="module")
def floor(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Floor]:
    with running_floor(tmp_path_factory.mktemp("approvals"), house) as running:
        kept = running.http.put(
            LIMITS, params={"of": HELD}, json={"approval_needed": True}, headers={"If-Match": "*"}
        )
        assert kept.status_code == 200, kept.text
        loose = {"duplicate_window_ms": 0, "submits_per_minute_max": 10_000}
        kept = running.http.put("/v1/risk-limits/tenant/-", json=loose, headers={"If-Match": "*"})
        assert kept.status_code == 200, kept.text
        yield running


@pytest.fixture(scope="module")
def checker(floor: Floor) -> Iterator[httpx.Client]:
    client = NewClient(client_id="checker", secret=Secret(SECRET), tenant="demo", scopes=SCOPES)
    asyncio.run(provision(floor.door.settings, [client], []))
    with floor.door.signed_in("checker") as http:
        yield http


def denied(floor: Floor, **changes: Any) -> dict[str, Any]:
    order = floor.submit(strategy=HELD, **changes)
    assert codes(order) == ["APPROVAL_NEEDED"]
    return order


def granted(checker: httpx.Client, order: dict[str, Any], **more: Any) -> str:
    answer = asked(checker, order, **more)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def asked(http: httpx.Client, order: dict[str, Any], **more: Any) -> httpx.Response:
    body = {"order": order["id"], "reason": "looked at it", **more}
    return http.post("/v1/approvals", json=body, headers={"Idempotency-Key": str(uuid.uuid4())})


def codes(order: dict[str, Any]) -> list[str]:
    return [denial["code"] for denial in order["denials"]]


def test_an_approved_order_is_sent_and_the_approval_used_up(floor: Floor, checker: httpx.Client) -> None:
    first = denied(floor)
    approval = granted(checker, first)
    sent = floor.submit(strategy=HELD, approval=approval)
    assert floor.ended(sent["id"])["state"] == "FILLED"
    assert floor.order(first["id"])["state"] == "DENIED"
    shown = floor.http.get(f"/v1/approvals/{approval}").json()
    told = {name: shown[name] for name in ("order", "used_by", "granted_by", "asked_by", "revoked_by")}
    assert told == {
        "order": first["id"],
        "used_by": sent["id"],
        "granted_by": "client:checker",
        "asked_by": "client:demo",
        "revoked_by": None,
    }
    again = floor.submit(strategy=HELD, approval=approval)
    assert codes(again) == ["APPROVAL_USED"]
    assert again["denials"][0]["numbers"] == {"approval": approval, "used_by": sent["id"]}


def test_of_many_orders_at_once_one_uses_the_approval(floor: Floor, checker: httpx.Client) -> None:
    approval = granted(checker, denied(floor))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        orders = list(pool.map(lambda _: floor.submit(strategy=HELD, approval=approval), range(8)))
    sent = [order for order in orders if order["state"] == "QUEUED"]
    assert len(sent) == 1
    assert {tuple(codes(order)) for order in orders if order not in sent} == {("APPROVAL_USED",)}


def test_a_smaller_order_may_be_sent_by_it(floor: Floor, checker: httpx.Client) -> None:
    approval = granted(checker, denied(floor))
    assert floor.submit(strategy=HELD, approval=approval, volume="0.04")["state"] == "QUEUED"


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"volume": "0.11"}, "volume"),
        ({"side": "sell"}, "side"),
        ({"account": "hedged"}, "account"),
        ({"take_profit": "1.2"}, "take_profit"),
        ({"type": "limit", "price": "1.09"}, "type, price"),
    ],
    ids=["larger", "the other way", "another account", "another price", "another type"],
)
def test_another_order_is_not_sent_by_it(
    floor: Floor, checker: httpx.Client, change: dict[str, str], differs: str
) -> None:
    approval = granted(checker, denied(floor))
    other = floor.submit(strategy=HELD, approval=approval, **change)
    assert codes(other) == ["APPROVAL_MISMATCH"]
    assert other["denials"][0]["numbers"]["differs"] == differs
    assert floor.submit(strategy=HELD, approval=approval)["state"] == "QUEUED"


def test_what_something_else_denies_does_not_use_it_up(floor: Floor, checker: httpx.Client) -> None:
    approval = granted(checker, denied(floor))
    switch = floor.post("/v1/kill-switches", {"scope": "strategy", "id": HELD, "reason": "r"}).json()
    assert codes(floor.submit(strategy=HELD, approval=approval)) == ["TRADING_HALTED"]
    floor.http.delete(f"/v1/kill-switches/{switch['id']}")
    assert floor.submit(strategy=HELD, approval=approval)["state"] == "QUEUED"


def test_a_revoked_one_lets_nothing_through(floor: Floor, checker: httpx.Client) -> None:
    approval = granted(checker, denied(floor))
    path = f"/v1/approvals/{approval}"
    first, again = checker.delete(path), checker.delete(path)
    assert (first.status_code, first.json()["revoked_by"], again.json()) == (
        200,
        "client:checker",
        first.json(),
    )
    assert codes(floor.submit(strategy=HELD, approval=approval)) == ["APPROVAL_REVOKED"]


def test_a_used_one_cannot_be_revoked(floor: Floor, checker: httpx.Client) -> None:
    approval = granted(checker, denied(floor))
    assert floor.submit(strategy=HELD, approval=approval)["state"] == "QUEUED"
    refused = checker.delete(f"/v1/approvals/{approval}")
    assert (refused.status_code, refused.json()["code"]) == (409, "APPROVAL_USED")


def test_an_expired_one_lets_nothing_through(floor: Floor, checker: httpx.Client) -> None:
    approval = granted(checker, denied(floor), valid_for_ms=1)
    wait_for(
        lambda: codes(floor.submit(strategy=HELD, approval=approval)) == ["APPROVAL_EXPIRED"],
        "the approval being over",
    )


def test_an_approval_nobody_granted_is_none(floor: Floor) -> None:
    order = floor.submit(strategy=HELD, approval=str(uuid.uuid4()))
    assert codes(order) == ["APPROVAL_UNKNOWN"]


def test_nobody_approves_an_own_order(floor: Floor) -> None:
    refused = asked(floor.http, denied(floor))
    assert (refused.status_code, refused.json()["code"]) == (403, "APPROVAL_OWN")


def test_nobody_submits_what_they_have_approved(floor: Floor, checker: httpx.Client) -> None:
    approval = granted(checker, denied(floor))
    floor.quote()
    body = {"account": "paper", "symbol": "EURUSD", "side": "buy", "type": "market", "volume": "0.1"}
    answer = checker.post(
        "/v1/orders",
        json={**body, "strategy": HELD, "approval": approval},
        headers={"Idempotency-Key": str(uuid.uuid4())},
    )
    assert codes(answer.json()) == ["APPROVAL_OWN"]


def test_what_was_not_denied_for_want_of_one_is_not_approved(floor: Floor, checker: httpx.Client) -> None:
    refused = asked(checker, floor.submit())
    assert (refused.status_code, refused.json()["code"]) == (409, "APPROVAL_NOT_NEEDED")


def test_another_tenant_neither_approves_nor_sees_nor_uses_it(floor: Floor, checker: httpx.Client) -> None:
    order = denied(floor)
    approval = granted(checker, order)
    with floor.door.signed_in("rival") as rival:
        assert asked(rival, order).json()["code"] == "ORDER_NOT_FOUND"
        assert rival.get(f"/v1/approvals/{approval}").status_code == 404
        assert rival.delete(f"/v1/approvals/{approval}").status_code == 404
        assert rival.get("/v1/approvals").json()["items"] == []


def test_grant_use_and_revocation_are_in_the_audit(floor: Floor, checker: httpx.Client) -> None:
    order, other = denied(floor), denied(floor)
    used, revoked = granted(checker, order), granted(checker, other)
    sent = floor.submit(strategy=HELD, approval=used)
    checker.delete(f"/v1/approvals/{revoked}")

    def seen(order_id: str) -> list[tuple[str, str]]:
        page = floor.http.get("/v1/audit", params={"order": order_id}).json()["items"]
        events = [one["event"] for one in page]
        return [(one["type"], one["actor"]) for one in events if one["type"].startswith("approval.")]

    assert seen(order["id"]) == [("approval.granted", "client:checker")]
    assert seen(sent["id"]) == [("approval.used", "client:demo")]
    assert seen(other["id"]) == [
        ("approval.granted", "client:checker"),
        ("approval.revoked", "client:checker"),
    ]


def test_approvals_are_listed_the_latest_first(floor: Floor, checker: httpx.Client) -> None:
    made = [granted(checker, denied(floor)) for _ in range(3)]
    found: list[str] = []
    cursor = None
    while len(found) < len(made):
        page = floor.http.get("/v1/approvals", params={"limit": 2, **({"cursor": cursor} if cursor else {})})
        found += [one["id"] for one in page.json()["items"]]
        cursor = page.json()["next_cursor"]
    assert found[:3] == made[::-1]
