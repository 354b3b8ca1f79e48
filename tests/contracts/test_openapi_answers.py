"""Real answers are those the OpenAPI document promises, field by field: the store writes bodies that no type checks."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema_rs
import msgspec
import pytest

from core.model.records import SHELVES, RecordKind
from gateway import openapi
from gateway.catalog import ENDPOINTS
from gateway.routing import Endpoint
from tests import gateways
from tests.dead_letters import bury, letter
from tests.engines import House, wait_for
from tests.gateways import DAY_MS, FrontDoor, tick
from tests.record_keepers import body_of
from tests.trading_floors import approved_order, queued_order, traded

ROWS = [
    tick(1, DAY_MS + 1_000, 1.1, 1.2),
    tick(2, DAY_MS + 2_000, 1.1, 1.3, utc_offset_s=None),
    tick(3, DAY_MS + 61_000, 0.0, 0.0, last=1.5, volume=2**63, volume_real=0.5),
    *(
        tick(4 + number, DAY_MS + 62_000, value, 1.0, quarantine="NOT_FINITE")
        for number, value in enumerate((float("nan"), float("inf"), float("-inf")))
    ),
    tick(7, DAY_MS + 63_000, 2.0, 1.0, quarantine="CROSSED"),
]
SPAN = "&limit=2"
ASKED = {
    # What makes a route answer with everything it has. A GET of JSON without path parameters needs a row here.
    "/": "/",
    "/readyz": "/readyz",
    "/openapi.json": "/openapi.json",
    "/v1/symbols": "/v1/symbols",
    "/v1/quotes": "/v1/quotes?symbols=EURUSD",
    "/v1/ticks": "/v1/ticks?symbol=EURUSD" + SPAN,
    "/v1/bars": "/v1/bars?symbol=EURUSD",
    "/v1/quarantine": "/v1/quarantine?symbol=EURUSD",
    "/v1/completeness": "/v1/completeness",
    "/v1/marks": "/v1/marks?symbol=EURUSD",
    "/v1/keys": "/v1/keys",
    "/v1/sources": "/v1/sources",
    "/v1/queues": "/v1/queues",
    "/v1/orders": "/v1/orders",
    "/v1/fills": "/v1/fills",
    "/v1/audit": "/v1/audit",
    "/v1/kill-switches": "/v1/kill-switches",
    "/v1/approvals": "/v1/approvals",
    "/v1/risk-limits": "/v1/risk-limits",
    "/v1/trading-states": "/v1/trading-states",
    "/v1/positions": "/v1/positions",
    "/v1/dead-letters": "/v1/dead-letters",
    **{f"/v1/{kind}": f"/v1/{kind}" for kind in SHELVES},
    "/.well-known/jwks.json": "/.well-known/jwks.json",
    "/.well-known/oauth-authorization-server": "/.well-known/oauth-authorization-server",
}
DOCUMENT = openapi.document()
EVERYWHERE = {
    # What HTTP itself and every answer's envelope carry is not said again for each route.
    *("content-type", "content-length", "transfer-encoding", "date", "server", "connection", "vary"),
    *("cache-control", "content-security-policy", "cross-origin-resource-policy", "referrer-policy"),
    *("x-content-type-options", "x-frame-options"),
}


@pytest.fixture(scope="module")
def door(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    root = tmp_path_factory.mktemp("answers")
    with gateways.running(gateways.build(root, house, redis_database=4), ROWS) as door:
        yield door


@pytest.fixture(scope="module")
def http(door: FrontDoor) -> Iterator[httpx.Client]:
    with door.signed_in() as http:
        wish = {"name": "k", "scopes": ["keys:read"], "expires_at_ms": int(time.time() + 3_600) * 1_000}
        answer = http.post("/v1/keys", json=wish, headers={"Idempotency-Key": "a-key-to-list"})
        assert answer.status_code == 201, answer.text
        bury(door.settings, letter("demo"))
        for kind in SHELVES:
            keep(http, kind)
        queued_order(door.settings, "demo", "a")
        approved_order(door.settings, "demo", "a")
        set_risk(http)
        traded(door.settings, "demo", "a")
        yield http


def keep(http: httpx.Client, kind: RecordKind) -> None:
    for name in ("a", "b"):
        wish = {**msgspec.to_builtins(body_of(kind)), "id": name}
        answer = http.post(f"/v1/{kind}", json=wish, headers={"Idempotency-Key": f"{kind}-{name}-made"})
        assert answer.status_code == 201, answer.text


def set_risk(http: httpx.Client) -> None:
    """Set one of everything, of a strategy nobody has."""
    wish = {"scope": "strategy", "id": "s", "reason": "r"}
    answer = http.post("/v1/kill-switches", json=wish, headers={"Idempotency-Key": "a-switch"})
    assert answer.status_code == 201, answer.text
    limits = {"volume_max": "5", "restricted": ["XYZ"]}
    assert http.put("/v1/risk-limits/strategy/s", json=limits, headers={"If-Match": "*"}).status_code == 200
    state = {"state": "ACTIVE", "reason": "r"}
    assert http.put("/v1/trading-states/strategy/s", json=state).status_code == 200


def promised(path: str, status: int, kind: str = "application/json") -> dict[str, Any]:
    """Return the schema of an answer, closed: a field more is a lie as well."""
    answer = DOCUMENT["paths"][path]["get"]["responses"][str(status)]
    schema = answer["content"][kind]["schema"]
    components = {
        name: {**one, "additionalProperties": False} if "properties" in one else one
        for name, one in DOCUMENT["components"]["schemas"].items()
    }
    return {**schema, "components": {"schemas": components}}


def hold(answer: httpx.Response, path: str) -> None:
    kind = answer.headers["content-type"].partition(";")[0]
    validator = jsonschema_rs.Draft202012Validator(promised(path, answer.status_code, kind))
    assert [str(error) for error in validator.iter_errors(answer.json())] == []


LISTED = [
    endpoint
    for endpoint in ENDPOINTS
    if endpoint.method == "GET"
    and "{" not in endpoint.path
    and "application/json" in endpoint.answers[200].types
    and endpoint.answers[200].schema is not None
]


@pytest.mark.parametrize("endpoint", LISTED, ids=lambda endpoint: endpoint.path)
def test_an_answer_is_as_promised(http: httpx.Client, endpoint: Endpoint) -> None:
    answer = http.get(ASKED[endpoint.path])
    assert answer.status_code == 200, answer.text
    hold(answer, endpoint.path)
    assert answer.json().get("items") != [], "an empty list proves nothing"


@pytest.mark.parametrize("endpoint", LISTED, ids=lambda endpoint: endpoint.path)
def test_an_answer_carries_no_header_that_is_not_documented(http: httpx.Client, endpoint: Endpoint) -> None:
    answer = http.get(ASKED[endpoint.path], headers={"Prefer": "wait=5"})
    documented = DOCUMENT["paths"][endpoint.path]["get"]["responses"]["200"]["headers"]
    assert set(answer.headers) - {name.lower() for name in documented} <= EVERYWHERE


@pytest.mark.parametrize("form", ["csv", "arrow", "parquet"])
@pytest.mark.parametrize("path", ["/v1/ticks", "/v1/bars", "/v1/quarantine"])
def test_a_file_is_of_a_promised_type(http: httpx.Client, path: str, form: str) -> None:
    answer = http.get(path, params={"symbol": "EURUSD", "format": form})
    assert answer.status_code == 200
    content = DOCUMENT["paths"][path]["get"]["responses"]["200"]["content"]
    assert answer.headers["content-type"].partition(";")[0] in content


def test_a_job_and_its_answer_are_as_promised(http: httpx.Client) -> None:
    accepted = http.get("/v1/ticks?symbol=EURUSD", headers={"Prefer": "wait=0"})
    assert accepted.status_code == 202
    hold(accepted, "/v1/ticks")
    location = accepted.headers["location"]
    wait_for(lambda: http.get(location).json()["status"] == "finished", "the job being finished", 10)
    hold(http.get(location), "/v1/jobs/{id}")
    answer = http.get(f"{location}/answer")
    assert (
        answer.headers["content-type"]
        in openapi.document()["paths"]["/v1/jobs/{id}/answer"]["get"]["responses"]["200"]["content"]
    )


@pytest.mark.parametrize(
    ("path", "url", "status"),
    [
        ("/v1/ticks", "/v1/ticks", 400),
        ("/v1/ticks", "/v1/ticks?symbol=A&source=rival", 404),
        ("/v1/jobs/{id}", "/v1/jobs/none", 404),
    ],
)
def test_a_refusal_is_as_promised(http: httpx.Client, path: str, url: str, status: int) -> None:
    answer = http.get(url)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = {
        "$ref": "#/components/schemas/Problem",
        "components": {"schemas": DOCUMENT["components"]["schemas"]},
    }
    jsonschema_rs.Draft202012Validator(problem).validate(answer.json())


def test_a_token_is_as_promised(door: FrontDoor) -> None:
    with door.client() as http:
        for secret, name in ((gateways.SECRET, "AccessToken"), ("wrong", "OAuthError")):
            answer = http.post(
                "/oauth/token", data={"grant_type": "client_credentials"}, auth=("demo", secret)
            )
            schema = DOCUMENT["components"]["schemas"][name]
            jsonschema_rs.Draft202012Validator(schema).validate(answer.json())


def test_the_document_is_for_nobody_without_a_token_and_the_page_not_at_all(
    door: FrontDoor, http: httpx.Client
) -> None:
    with door.client() as stranger:
        assert stranger.get("/openapi.json").status_code == 401
        assert stranger.get("/docs").status_code == stranger.get("/docs/docs.js").status_code == 404
        assert "docs" not in stranger.get("/").json()["links"]
    assert http.get("/openapi.json").json() == DOCUMENT
