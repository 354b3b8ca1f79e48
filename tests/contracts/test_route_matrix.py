"""Every route with every kind of caller. The cases are made from the catalogue, so none can be forgotten.

A route with path parameters, or one that demands a body, needs a recipe in PLANS; without one its cases fail.
"""

import json
import secrets
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import httpx
import msgspec
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet
from joserfc.jws import extract_compact

from core.messages.similarity import SEARCHED
from core.model.principals import Scope
from core.model.records import SHELVES, RecordKind
from gateway.catalog import ENDPOINTS
from gateway.routing import Access, Endpoint
from tests import gateways
from tests.dead_letters import bury, letter, queued_job
from tests.engines import House, wait_for
from tests.gateways import DAY_MS, FrontDoor, tick
from tests.record_keepers import body_of
from tests.trading_floors import approved_order, queued_order

OWNER, STRANGER = "demo", "rival"
CREDENTIALS = {"client_id": OWNER, "client_secret": gateways.SECRET}
A_DAY_MS = 86_400_000
DESK = "desk"
SWITCH = {"scope": "strategy", "id": "nobody's", "reason": "r"}
SYMBOL_SCOPE = {"scope": "symbol", "id": "XYZ"}
STRATEGY_SCOPE = {"scope": "strategy", "id": "nobody's"}
ORDER = {"account": DESK, "symbol": "EURUSD", "side": "buy", "type": "market", "volume": "0.1"}
KEY: dict[str, Any] = {
    "name": "k",
    "scopes": ["keys:read"],
    "expires_at_ms": int(time.time()) * 1_000 + A_DAY_MS,
}


class Caller(StrEnum):
    """A column of the matrix."""

    NONE = "none"
    EXPIRED = "expired"
    WRONG_AUDIENCE = "wrong audience"
    WRONG_SCOPE = "wrong scope"
    OTHER_TENANT = "other tenant"
    OWNER = "owner"
    KEY_REVOKED = "revoked key"
    KEY_WRONG_SCOPE = "key of the wrong scope"
    KEY_OTHER_TENANT = "key of another tenant"
    KEY = "key of the owner"


AS_TOKEN = {
    # What a key must be answered is what a token must be answered.
    Caller.KEY_REVOKED: Caller.EXPIRED,
    Caller.KEY_WRONG_SCOPE: Caller.WRONG_SCOPE,
    Caller.KEY_OTHER_TENANT: Caller.OTHER_TENANT,
    Caller.KEY: Caller.OWNER,
}


@dataclass(frozen=True)
class Plan:
    """How a route is called so that its owner succeeds. owned: makes what the path names and returns its parameters;
    place: parameters that name no more than a place, which every tenant has of its own;
    by_key: what the owner's key is answered, where that differs; endless: only its beginning is read.
    """

    query: dict[str, str] = field(default_factory=dict)
    form: dict[str, str] | None = None
    json: Any = None
    owned: Callable[["Matrix"], dict[str, str]] | None = None
    place: dict[str, str] = field(default_factory=dict)
    answers: frozenset[int] = frozenset({200})
    by_key: frozenset[int] = frozenset()
    headers: dict[str, str] = field(default_factory=dict)
    endless: bool = False


@dataclass
class Matrix:
    """A running front door, and who knocks at it."""

    door: FrontDoor
    http: httpx.Client
    claims: dict[str, dict[str, Any]]
    keys: dict[tuple[str, ...], str] = field(default_factory=dict)
    source: dict[str, str] = field(default_factory=dict)

    def token(self, client: str, **changes: Any) -> str:
        """Return a token as the gateway signs them, but for `changes`."""
        (key, *_) = KeySet.import_key_set(json.loads((self.door.root / "key.json").read_text())).keys
        header = {"alg": "Ed25519", "typ": "at+jwt", "kid": key.kid}
        return jwt.encode(header, {**self.claims[client], **changes}, key, algorithms=["Ed25519"])

    def headers(self, caller: Caller, endpoint: Endpoint) -> dict[str, str]:
        if caller is Caller.NONE:
            return {}
        if caller in AS_TOKEN:
            return {"X-API-Key": self._key(caller, endpoint)}
        return {"Authorization": f"Bearer {self._credential(caller, endpoint)}"}

    def _key(self, caller: Caller, endpoint: Endpoint) -> str:
        wrong = caller is Caller.KEY_WRONG_SCOPE
        scopes = [scope.value for scope in Scope if not wrong or scope != endpoint.access]
        name = (caller.value, *scopes)
        if name not in self.keys:
            self.keys[name] = self._made(caller, scopes)
        return self.keys[name]

    def _made(self, caller: Caller, scopes: list[str]) -> str:
        """Return a key for the whole run; of keys that are made by keys, none outlives its maker."""
        client = STRANGER if caller is Caller.KEY_OTHER_TENANT else OWNER
        signed = {"Authorization": f"Bearer {self.token(client)}"}
        wish = {"name": caller.value, "scopes": scopes, "expires_at_ms": KEY["expires_at_ms"] + A_DAY_MS}
        answer = self.http.post("/v1/keys", json=wish, headers={**signed, **named()})
        assert answer.status_code == 201, answer.text
        secret = str(answer.json()["secret"])
        if caller is Caller.KEY_REVOKED:
            self.http.delete(f"/v1/keys/{answer.json()['id']}", headers=signed)
            wait_for(
                lambda: self.http.get("/v1/keys", headers={"X-API-Key": secret}).status_code == 401,
                "the key being refused",
                2,
            )
        return secret

    def _credential(self, caller: Caller, endpoint: Endpoint) -> str:
        past_s = int(time.time()) - 3_600
        others = " ".join(scope for scope in Scope if scope != endpoint.access)
        changes: dict[Caller, dict[str, Any]] = {
            Caller.EXPIRED: {"iat": past_s - 60, "exp": past_s},
            Caller.WRONG_AUDIENCE: {"aud": "somebody-else"},
            Caller.WRONG_SCOPE: {"scope": others},
        }
        return self.token(STRANGER if caller is Caller.OTHER_TENANT else OWNER, **changes.get(caller, {}))

    def call(self, endpoint: Endpoint, plan: Plan, caller: Caller, **parameters: str) -> httpx.Response:
        with self.http.stream(
            endpoint.method,
            endpoint.path.format(**plan.place, **parameters),
            params=plan.query,
            data=plan.form,
            json=plan.json,
            headers=self.headers(caller, endpoint) | plan.headers | (named() if endpoint.idempotent else {}),
        ) as answer:
            if not plan.endless or answer.status_code != 200:
                answer.read()
                return answer
            return httpx.Response(200, content=next(answer.iter_bytes()))

    def owner(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token(OWNER)}"}

    def marks(self) -> list[str]:
        """Return the ids of one of everything that paths can name, all of the owner."""
        served = {f"{e.method} {e.path}" for e in ENDPOINTS}
        plans = (plan for name, plan in PLANS.items() if "{id}" in name and name in served)
        ids = [plan.owned(self)["id"] for plan in plans if plan.owned]
        return [*ids, self.one_source()["name"]]

    def made_key(self) -> dict[str, str]:
        answer = self.http.post("/v1/keys", json=KEY, headers={**self.owner(), **named()})
        return {"id": answer.json()["id"]}

    def made_source(self) -> dict[str, str]:
        answer = self.http.post("/v1/sources", json={"label": "made"}, headers={**self.owner(), **named()})
        assert answer.status_code == 201, answer.text
        return {"name": answer.json()["name"]}

    def one_source(self) -> dict[str, str]:
        """Return the same one each time: a tenant may have so many."""
        self.source = self.source or self.made_source()
        return self.source

    def finished_job(self) -> dict[str, str]:
        accepted = self.http.get("/v1/symbols", headers={**self.owner(), "Prefer": "wait=0"})
        assert accepted.status_code == 202
        location = accepted.headers["location"]
        wait_for(
            lambda: self.http.get(location, headers=self.owner()).json()["status"] == "finished",
            "the job",
            10,
        )
        return {"id": accepted.json()["id"]}

    def buried(self) -> dict[str, str]:
        dead = letter(OWNER)
        bury(self.door.settings, dead)
        return {"id": dead.id}

    def made_record(self, kind: RecordKind) -> dict[str, str]:
        wish = msgspec.to_builtins(body_of(kind, secrets.randbelow(1_000_000)))
        answer = self.http.post(f"/v1/{kind}", json=wish, headers={**self.owner(), **named()})
        assert answer.status_code == 201, answer.text
        return {"id": answer.json()["id"]}

    def made_service(self) -> dict[str, str]:
        return self.made_record(RecordKind.SERVICES)

    def make_services(self, client: str) -> None:
        """Make those that every flow here leads between."""
        for name in ("a", "b"):
            wish = {**msgspec.to_builtins(body_of(RecordKind.SERVICES)), "id": name}
            headers = {"Authorization": f"Bearer {self.token(client)}", **named()}
            assert self.http.post("/v1/services", json=wish, headers=headers).status_code == 201

    def make_desk(self, client: str) -> None:
        """Make the account that orders here are for."""
        wish = {**msgspec.to_builtins(body_of(RecordKind.ACCOUNTS)), "id": DESK}
        headers = {"Authorization": f"Bearer {self.token(client)}", **named()}
        assert self.http.post("/v1/accounts", json=wish, headers=headers).status_code == 201

    def made_switch(self) -> dict[str, str]:
        answer = self.http.post("/v1/kill-switches", json=SWITCH, headers={**self.owner(), **named()})
        assert answer.status_code == 201, answer.text
        return {"id": answer.json()["id"]}

    def set_risk(self, client: str) -> None:
        headers = {"Authorization": f"Bearer {self.token(client)}", "If-Match": "*"}
        path = "/v1/risk-limits/{scope}/{id}".format(**SYMBOL_SCOPE)
        assert self.http.put(path, json={"volume_max": "5"}, headers=headers).status_code == 200
        path = "/v1/trading-states/{scope}/{id}".format(**STRATEGY_SCOPE)
        state = {"state": "ACTIVE", "reason": "r"}
        assert self.http.put(path, json=state, headers=headers).status_code == 200

    def queued_order(self) -> dict[str, str]:
        return {"id": queued_order(self.door.settings, OWNER, DESK)}

    def made_approval(self) -> dict[str, str]:
        return {"id": approved_order(self.door.settings, OWNER, DESK)}

    def queued_job(self) -> dict[str, str]:
        return {"id": queued_job(self.door.settings, OWNER)}


def named() -> dict[str, str]:
    """Return the header of a request that was never made before."""
    return {"Idempotency-Key": str(uuid.uuid4())}


PLANS: dict[str, Plan] = {
    "GET /docs": Plan(answers=frozenset({404})),
    "GET /docs/{name}": Plan(owned=lambda _: {"name": "docs.js"}, answers=frozenset({404})),
    "POST /oauth/token": Plan(form={"grant_type": "client_credentials", **CREDENTIALS}),
    "POST /oauth/revoke": Plan(form={"token": "x", **CREDENTIALS}),
    "POST /oauth/introspect": Plan(form={"token": "x", **CREDENTIALS}),
    "POST /v1/keys": Plan(json=KEY, answers=frozenset({201})),
    # A key rotates itself and the keys made with it; this one was made with a token.
    "POST /v1/keys/{id}/rotate": Plan(json={}, owned=Matrix.made_key, by_key=frozenset({403})),
    "DELETE /v1/keys/{id}": Plan(owned=Matrix.made_key, answers=frozenset({204})),
    "POST /v1/sources": Plan(json={"label": "new"}, answers=frozenset({201})),
    "GET /v1/sources/{name}": Plan(owned=Matrix.one_source),
    "PUT /v1/sources/{name}": Plan(json={"title": "x"}, owned=Matrix.one_source, headers={"If-Match": "*"}),
    "POST /v1/sources/{name}/token": Plan(owned=Matrix.one_source),
    "DELETE /v1/sources/{name}": Plan(owned=Matrix.made_source, answers=frozenset({204})),
    "GET /v1/ticks": Plan(query={"symbol": "EURUSD"}),
    "GET /v1/ticks/export": Plan(query={"symbol": "EURUSD"}),
    "GET /v1/bars": Plan(query={"symbol": "EURUSD"}),
    "GET /v1/bars/export": Plan(query={"symbol": "EURUSD"}),
    "GET /v1/marks": Plan(query={"symbol": "EURUSD"}),
    "GET /v1/quotes": Plan(query={"symbols": "EURUSD"}),
    **{f"POST /v1/{kind}/search": Plan(json={"text": "x"}) for kind in SEARCHED},
    **{
        f"GET /v1/services/{{id}}/{name}": Plan(owned=Matrix.made_service)
        for name in ("downstream", "upstream", "impact")
    },
    "GET /v1/services/{id}/path": Plan(query={"to": "a"}, owned=Matrix.made_service),
    "POST /v1/orders": Plan(json=ORDER, answers=frozenset({202})),
    "POST /v1/orders/cancel": Plan(json={"account": DESK}, answers=frozenset({202})),
    "POST /v1/orders/{id}/cancel": Plan(owned=Matrix.queued_order, answers=frozenset({202})),
    # Nobody has sent it yet.
    "POST /v1/orders/{id}/modify": Plan(
        json={"price": "1.06"}, owned=Matrix.queued_order, answers=frozenset({409})
    ),
    "GET /v1/orders/stream": Plan(query={"after": "0"}, endless=True),
    "GET /v1/orders/{id}": Plan(owned=Matrix.queued_order),
    "GET /v1/orders/{id}/events": Plan(owned=Matrix.queued_order),
    "POST /v1/kill-switches": Plan(json=SWITCH, answers=frozenset({201})),
    "GET /v1/kill-switches/{id}": Plan(owned=Matrix.made_switch),
    "DELETE /v1/kill-switches/{id}": Plan(owned=Matrix.made_switch),
    # None of the orders here was denied for want of one.
    "POST /v1/approvals": Plan(json={"order": "01J9ZQ3X5T8W2K4M6N7P8R9S0T"}, answers=frozenset({404})),
    "GET /v1/approvals/{id}": Plan(owned=Matrix.made_approval),
    "DELETE /v1/approvals/{id}": Plan(owned=Matrix.made_approval),
    "GET /v1/risk-limits/{scope}/{id}": Plan(place=SYMBOL_SCOPE),
    "GET /v1/risk-limits/{scope}/{id}/versions": Plan(place=SYMBOL_SCOPE),
    "PUT /v1/risk-limits/{scope}/{id}": Plan(
        json={"volume_max": "5"}, place=SYMBOL_SCOPE, headers={"If-Match": "*"}
    ),
    "GET /v1/trading-states/{scope}/{id}": Plan(place=STRATEGY_SCOPE),
    "PUT /v1/trading-states/{scope}/{id}": Plan(
        json={"state": "ACTIVE", "reason": "r"}, place=STRATEGY_SCOPE
    ),
    "GET /v1/accounts/{id}/standing": Plan(owned=lambda matrix: matrix.made_record(RecordKind.ACCOUNTS)),
    "GET /v1/jobs/{id}": Plan(owned=Matrix.finished_job),
    "DELETE /v1/jobs/{id}": Plan(owned=Matrix.queued_job),
    "GET /v1/dead-letters/{id}": Plan(owned=Matrix.buried),
    "POST /v1/dead-letters/{id}/replay": Plan(owned=Matrix.buried, answers=frozenset({202})),
    "GET /v1/jobs/{id}/answer": Plan(owned=Matrix.finished_job),
}


def _plans_of(kind: RecordKind) -> dict[str, Plan]:
    body, any_version = msgspec.to_builtins(body_of(kind)), {"If-Match": "*"}

    def made(matrix: Matrix) -> dict[str, str]:
        return matrix.made_record(kind)

    return {
        f"POST /v1/{kind}": Plan(json=body, answers=frozenset({201})),
        f"GET /v1/{kind}/{{id}}": Plan(owned=made),
        f"PUT /v1/{kind}/{{id}}": Plan(json=body, owned=made, headers=any_version),
        f"DELETE /v1/{kind}/{{id}}": Plan(owned=made, headers=any_version, answers=frozenset({204})),
    }


for _kind in SHELVES:
    PLANS |= _plans_of(_kind)


def plan_of(endpoint: Endpoint) -> Plan:
    plan = PLANS.get(f"{endpoint.method} {endpoint.path}", Plan())
    assert plan.owned or plan.place or "{" not in endpoint.path, "what its path names has no recipe in PLANS"
    assert plan.form is not None or plan.json is not None or not endpoint.body, (
        "its body has no recipe in PLANS"
    )
    return plan


@pytest.fixture(scope="module")
def matrix(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    rows = [tick(seq, DAY_MS + seq, 1.1, 1.2) for seq in (1, 2)]
    rows += [tick(1, DAY_MS, 9.1, 9.2, source="rival")]
    door = gateways.build(tmp_path_factory.mktemp("matrix"), house, redis_database=7)
    with gateways.running(door, rows) as door, door.client() as http:
        tokens = {client: door.token(client) for client in (OWNER, STRANGER)}
        claims = {
            client: json.loads(extract_compact(token.encode()).payload) for client, token in tokens.items()
        }
        matrix = Matrix(door, http, claims)
        for client in (OWNER, STRANGER):
            matrix.make_services(client)
            matrix.make_desk(client)
            matrix.set_risk(client)
        yield matrix


CASES = [pytest.param(e, caller, id=f"{e.method} {e.path}-{caller}") for e in ENDPOINTS for caller in Caller]


@pytest.mark.parametrize(("endpoint", "caller"), CASES)
def test_a_route_lets_in_whom_its_row_says(matrix: Matrix, endpoint: Endpoint, caller: Caller) -> None:
    plan = plan_of(endpoint)
    owned = plan.owned(matrix) if plan.owned else {}
    answer = matrix.call(endpoint, plan, caller, **owned)
    fine = (plan.by_key if caller is Caller.KEY else None) or plan.answers
    caller = AS_TOKEN.get(caller, caller)
    asks_nobody = endpoint.access in {Access.PUBLIC, Access.OPERATOR}
    if asks_nobody or caller is Caller.OWNER:
        assert answer.status_code in fine, answer.text
    elif caller in {Caller.NONE, Caller.EXPIRED, Caller.WRONG_AUDIENCE}:
        assert answer.status_code == 401, answer.text
        assert answer.headers["www-authenticate"].startswith("Bearer ")
    elif caller is Caller.WRONG_SCOPE and isinstance(endpoint.access, Scope):
        assert (answer.status_code, answer.json()["code"]) == (403, "INSUFFICIENT_SCOPE")
        assert f'scope="{endpoint.access}"' in answer.headers["www-authenticate"]
    elif caller is Caller.OTHER_TENANT and owned:
        nothing = matrix.call(endpoint, plan, caller, **dict.fromkeys(owned, "0" * 16))
        assert (answer.status_code, answer.json()["code"]) == (404, nothing.json()["code"])
    else:
        assert answer.status_code in plan.answers, answer.text


@pytest.mark.parametrize(
    "endpoint",
    [e for e in ENDPOINTS if e.method == "GET" and e.path.startswith("/v1/") and "{" not in e.path],
    ids=lambda endpoint: endpoint.path,
)
def test_a_list_holds_nothing_of_another_tenant(matrix: Matrix, endpoint: Endpoint) -> None:
    plan = plan_of(endpoint)
    theirs = matrix.call(endpoint, plan, Caller.OTHER_TENANT).text
    ours = matrix.call(endpoint, plan, Caller.OWNER).text
    assert '"source":"demo"' not in theirs
    for mark in matrix.marks():
        assert mark not in theirs
    assert '"source":"rival"' not in ours


@pytest.mark.parametrize(
    "endpoint", [e for e in ENDPOINTS if e.access is Access.OPERATOR], ids=lambda endpoint: endpoint.path
)
@pytest.mark.parametrize("caller", Caller)
def test_an_operators_route_is_shut_to_the_world(matrix: Matrix, endpoint: Endpoint, caller: Caller) -> None:
    headers = {**matrix.headers(caller, endpoint), "X-Forwarded-For": "203.0.113.9"}
    assert matrix.http.request(endpoint.method, endpoint.path, headers=headers).status_code == 403


@pytest.mark.parametrize("endpoint", [e for e in ENDPOINTS if e.method == "GET"], ids=lambda e: e.path)
def test_the_head_of_an_answer_is_guarded_as_the_answer(matrix: Matrix, endpoint: Endpoint) -> None:
    path = endpoint.path.format(id="0", name="0", scope="0")
    assert matrix.http.head(path).status_code == matrix.http.get(path).status_code
