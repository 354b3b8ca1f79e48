"""API keys through two gateways: what a key opens, who may make and end it, and that it ends everywhere at once."""

import asyncio
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from core.adapters.postgres.pool import open_pool
from core.infrastructure import provisioning
from core.infrastructure.provisioning import NewClient, provision
from core.model.keys import new_secret
from core.model.principals import Scope
from core.settings import Secret
from gateway.catalog import ENDPOINTS
from gateway.routing import Endpoint
from tests import gateways
from tests.engines import House, free_port, wait_for
from tests.gateways import SECRET, FrontDoor, Process

DAY_MS = 86_400_000
BOTH = ["keys:read", "keys:write"]


@pytest.fixture(scope="module")
def door(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    door = gateways.build(tmp_path_factory.mktemp("keys"), house, redis_database=9)
    asyncio.run(gateways.prepare(door.settings, []))
    door.gateway.start()
    try:
        wait_for(door.alive, "the gateway being alive")
        yield door
    finally:
        door.gateway.stop()


@pytest.fixture(scope="module")
def other_url(door: FrontDoor) -> Iterator[str]:
    """A second gateway process on the same stores."""
    port = free_port()
    environment = {**door.gateway.environment, "TICKGATE_GATEWAY_PORT": str(port)}
    other = Process(["gateway"], environment, door.root / "gateway2.log")
    other.start()
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(
            lambda: other.check() or gateways._status(f"{url}/livez") == 200, "the other gateway being alive"
        )
        yield url
    finally:
        other.stop()


@pytest.fixture(scope="module")
def ours(door: FrontDoor) -> Iterator[httpx.Client]:
    with door.signed_in() as http:
        yield http


@pytest.fixture(scope="module")
def theirs(door: FrontDoor) -> Iterator[httpx.Client]:
    with door.signed_in("rival") as http:
        yield http


def wish(**changes: Any) -> dict[str, Any]:
    fields = {"name": "robot", "scopes": BOTH, "expires_at_ms": int(time.time() * 1_000) + 30 * DAY_MS}
    return {**fields, **changes}


def post(http: httpx.Client, path: str, body: dict[str, Any] | None = None, **headers: str) -> httpx.Response:
    return http.post(path, json=body or {}, headers={"Idempotency-Key": str(uuid.uuid4()), **headers})


def made(http: httpx.Client, **changes: Any) -> dict[str, Any]:
    answer = post(http, "/v1/keys", wish(**changes))
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def opens(url: str, secret: str) -> int:
    return httpx.get(f"{url}/v1/keys", params={"limit": 1}, headers={"X-API-Key": secret}).status_code


def refused_within_a_second(urls: tuple[str, ...], secret: str) -> bool:
    wait_for(lambda: {opens(url, secret) for url in urls} == {401}, "every gateway refusing", timeout_s=1.0)
    return True


def test_a_new_key_opens_the_door_both_ways(door: FrontDoor, ours: httpx.Client) -> None:
    secret = made(ours)["secret"]
    for headers in ({"X-API-Key": secret}, {"Authorization": f"Bearer {secret}"}):
        assert httpx.get(f"{door.url}/v1/keys", headers=headers).status_code == 200


def test_a_key_says_whose_it_is_and_never_its_secret_again(ours: httpx.Client) -> None:
    key = made(ours, name="reader", scopes=["keys:read"])
    secret = key.pop("secret")
    assert secret.startswith(f"tgk_{key['prefix']}_")
    assert (key["subject"], key["owner_kind"], key["scopes"], key["made_with"]) == (
        "demo",
        "client",
        ["keys:read"],
        None,
    )
    listed = {item["id"]: item for item in ours.get("/v1/keys", params={"limit": 1_000}).json()["items"]}
    assert listed[key["id"]] == key


@pytest.mark.parametrize(
    "given",
    [
        "tgk_",
        "tgk_abcdefghijkl_" + "a" * 43,
        "tgk_abcdefghijkl_" + "a" * 4_300,
        "tgk_abcdefghijk!_" + "a" * 43,
        "something else",
    ],
)
def test_what_is_no_key_of_ours_opens_nothing(door: FrontDoor, given: str) -> None:
    answer = httpx.get(f"{door.url}/v1/keys", headers={"X-API-Key": given})
    assert (answer.status_code, answer.json()["code"]) == (401, "INVALID_KEY")
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_a_wrong_secret_is_refused_like_an_unknown_key(door: FrontDoor, ours: httpx.Client) -> None:
    secret = made(ours)["secret"]
    wrong = secret[:-1] + ("A" if secret[-1] != "A" else "E")
    answers = [
        httpx.get(f"{door.url}/v1/keys", headers={"X-API-Key": text}).json()
        for text in (wrong, new_secret().text)
    ]
    for answer in answers:
        del answer["trace_id"]
    assert answers[0] == answers[1]


def test_a_key_and_a_token_at_once_are_refused(ours: httpx.Client) -> None:
    answer = ours.get("/v1/keys", headers={"X-API-Key": made(ours)["secret"]})
    assert (answer.status_code, answer.json()["code"]) == (401, "CREDENTIALS_AMBIGUOUS")


@pytest.mark.parametrize("name", ["api_key", "key", "X-API-Key", "access_token"])
def test_a_key_in_the_query_opens_nothing(door: FrontDoor, ours: httpx.Client, name: str) -> None:
    answer = httpx.get(f"{door.url}/v1/keys", params={name: made(ours)["secret"]})
    assert (answer.status_code, answer.json()["code"]) == (401, "TOKEN_MISSING")


def test_a_key_allows_its_own_scopes_only(door: FrontDoor, ours: httpx.Client) -> None:
    secret = made(ours, scopes=["market:read"])["secret"]
    answer = httpx.get(f"{door.url}/v1/keys", headers={"X-API-Key": secret})
    assert (answer.status_code, answer.json()["code"]) == (403, "INSUFFICIENT_SCOPE")


SCOPED = [endpoint for endpoint in ENDPOINTS if isinstance(endpoint.access, Scope)]


@pytest.fixture(scope="module")
def beyond(ours: httpx.Client) -> dict[str, str]:
    """For each scope a key that allows every other, and a key that allows all and is revoked."""
    everything = sorted(Scope)
    found = {
        scope: made(ours, scopes=[other for other in everything if other != scope])["secret"]
        for scope in everything
    }
    revoked = made(ours, scopes=everything)
    assert ours.delete(f"/v1/keys/{revoked['id']}").status_code == 204
    return {**found, "revoked": revoked["secret"]}


@pytest.mark.parametrize("endpoint", SCOPED, ids=lambda endpoint: f"{endpoint.method} {endpoint.path}")
def test_every_route_is_shut_to_keys_that_do_not_allow_it(
    door: FrontDoor, beyond: dict[str, str], endpoint: Endpoint
) -> None:
    path = f"{door.url}{endpoint.path.format(id='0', name='0', scope='0')}"
    for secret, status, code in (
        (beyond[str(endpoint.access)], 403, "INSUFFICIENT_SCOPE"),
        (beyond["revoked"], 401, "INVALID_KEY"),
        (new_secret().text, 401, "INVALID_KEY"),
    ):
        answer = httpx.request(endpoint.method, path, headers={"X-API-Key": secret})
        assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_key_never_allows_more_than_who_makes_it(door: FrontDoor, ours: httpx.Client) -> None:
    parent = made(ours, scopes=BOTH)["secret"]
    with door.client() as http:
        http.headers["X-API-Key"] = parent
        assert made(http, scopes=["keys:write"])["scopes"] == ["keys:write"]
        answer = post(http, "/v1/keys", wish(scopes=["keys:read", "market:read"]))
    assert (answer.status_code, answer.json()["code"]) == (403, "SCOPES_BEYOND_YOURS")
    assert "market:read" in answer.json()["detail"]


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": "x" * 101},
        {"name": "a\0b"},
        {"name": None},
        {"scopes": []},
        {"scopes": ["everything"]},
        {"scopes": "keys:read"},
        {"expires_at_ms": "tomorrow"},
        {"tenant": "rival"},
    ],
)
def test_a_wish_that_does_not_fit_is_refused(ours: httpx.Client, changes: dict[str, Any]) -> None:
    answer = post(ours, "/v1/keys", wish(**changes))
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_BODY"), answer.text


@pytest.mark.parametrize("days", [-1, 367, 100_000])
def test_a_key_ends_in_the_future_within_a_year(ours: httpx.Client, days: int) -> None:
    answer = post(ours, "/v1/keys", wish(expires_at_ms=int(time.time() * 1_000) + days * DAY_MS))
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_EXPIRY"), answer.text


def test_a_wish_that_is_no_json_is_refused(ours: httpx.Client) -> None:
    headers = {"Idempotency-Key": str(uuid.uuid4()), "Content-Type": "application/json"}
    assert ours.post("/v1/keys", content=b"{", headers=headers).json()["code"] == "INVALID_BODY"
    headers = {"Idempotency-Key": str(uuid.uuid4()), "Content-Type": "text/plain"}
    answer = ours.post("/v1/keys", content=b"{}", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "BODY_TYPE")


def test_pages_of_keys_follow_each_other_without_gap_or_overlap(ours: httpx.Client) -> None:
    for _ in range(3):
        made(ours)
    everything = [key["id"] for key in ours.get("/v1/keys", params={"limit": 1_000}).json()["items"]]
    paged: list[str] = []
    parameters: dict[str, Any] = {"limit": 2}
    while True:
        page = ours.get("/v1/keys", params=parameters).json()
        paged += [key["id"] for key in page["items"]]
        assert len(page["items"]) <= 2
        if page["next_cursor"] is None:
            break
        parameters["cursor"] = page["next_cursor"]
    assert paged == everything == sorted(everything)


@pytest.mark.parametrize("cursor", ["x", "x" * 36, "0" * 36])
def test_a_cursor_that_is_none_of_ours_is_refused(ours: httpx.Client, cursor: str) -> None:
    assert ours.get("/v1/keys", params={"cursor": cursor}).status_code == 400


def test_another_tenants_keys_do_not_exist(ours: httpx.Client, theirs: httpx.Client) -> None:
    key = made(ours)
    listed = theirs.get("/v1/keys", params={"limit": 1_000}).json()["items"]
    assert key["id"] not in {item["id"] for item in listed}
    for answer in (post(theirs, f"/v1/keys/{key['id']}/rotate"), theirs.delete(f"/v1/keys/{key['id']}")):
        assert (answer.status_code, answer.json()["code"]) == (404, "KEY_NOT_FOUND")


@pytest.mark.parametrize(
    "key_id",
    ["x", "0", str(uuid.uuid4()), str(uuid.uuid4()).upper(), "a" * 5_000],
    ids=["letter", "digit", "id", "upper-case", "long"],
)
def test_a_key_that_does_not_exist_is_not_found(ours: httpx.Client, key_id: str) -> None:
    assert ours.delete(f"/v1/keys/{key_id}").status_code == 404
    assert post(ours, f"/v1/keys/{key_id}/rotate").status_code == 404


def test_a_revoked_key_is_refused_everywhere_within_a_second(
    door: FrontDoor, ours: httpx.Client, other_url: str
) -> None:
    key = made(ours)
    urls = (door.url, other_url)
    assert [opens(url, key["secret"]) for url in urls] == [200, 200], "both remember it now"
    assert ours.delete(f"/v1/keys/{key['id']}").status_code == 204
    assert opens(door.url, key["secret"]) == 401, "who revoked it refuses it at once"
    assert refused_within_a_second(urls, key["secret"])
    assert ours.delete(f"/v1/keys/{key['id']}").status_code == 204, "again is no error"
    assert post(ours, f"/v1/keys/{key['id']}/rotate").json()["code"] == "KEY_ENDED"


def test_a_key_made_with_a_key_ends_with_it(door: FrontDoor, ours: httpx.Client, other_url: str) -> None:
    parent = made(ours)
    with door.client() as http:
        http.headers["X-API-Key"] = parent["secret"]
        child = made(http)
        http.headers["X-API-Key"] = child["secret"]
        grandchild = made(http)
    assert child["made_with"] == parent["id"]
    assert opens(other_url, grandchild["secret"]) == 200
    assert ours.delete(f"/v1/keys/{parent['id']}").status_code == 204
    assert refused_within_a_second((door.url, other_url), grandchild["secret"])


def test_a_rotated_key_has_a_new_secret_and_the_old_one_ends_everywhere(
    door: FrontDoor, ours: httpx.Client, other_url: str
) -> None:
    key = made(ours)
    urls = (door.url, other_url)
    assert [opens(url, key["secret"]) for url in urls] == [200, 200]
    rotated = post(ours, f"/v1/keys/{key['id']}/rotate").json()
    assert rotated["id"] == key["id"]
    assert [opens(url, rotated["secret"]) for url in urls] == [200, 200]
    assert refused_within_a_second(urls, key["secret"])


def test_in_its_grace_the_old_secret_stays_good_until_the_next_rotation(
    door: FrontDoor, ours: httpx.Client, other_url: str
) -> None:
    first = made(ours)
    urls = (door.url, other_url)
    second = post(ours, f"/v1/keys/{first['id']}/rotate", {"grace_minutes": 5}).json()
    assert {opens(url, key["secret"]) for url in urls for key in (first, second)} == {200}
    third = post(ours, f"/v1/keys/{first['id']}/rotate", {"grace_minutes": 5}).json()
    assert refused_within_a_second(urls, first["secret"])
    assert {opens(url, key["secret"]) for url in urls for key in (second, third)} == {200}


@pytest.mark.parametrize("grace", [-1, 1_441, 1.5, "5"])
def test_a_grace_beyond_a_day_is_refused(ours: httpx.Client, grace: Any) -> None:
    answer = post(ours, f"/v1/keys/{uuid.uuid4()}/rotate", {"grace_minutes": grace})
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_BODY")


def test_a_key_may_rotate_itself_and_its_own_but_no_other(door: FrontDoor, ours: httpx.Client) -> None:
    sibling, parent = made(ours), made(ours)
    with door.client() as http:
        http.headers["X-API-Key"] = parent["secret"]
        child = made(http)
        assert post(http, f"/v1/keys/{child['id']}/rotate").status_code == 200
        answer = post(http, f"/v1/keys/{sibling['id']}/rotate")
        assert (answer.status_code, answer.json()["code"]) == (403, "KEY_NOT_YOURS")
        assert post(http, f"/v1/keys/{parent['id']}/rotate").status_code == 200


def test_nobody_rotates_a_key_into_more_than_he_may_do(door: FrontDoor, ours: httpx.Client) -> None:
    mighty = made(ours, scopes=[*BOTH, "market:read"])
    with door.client() as http:
        form = {"grant_type": "client_credentials", "scope": "keys:write"}
        token = http.post("/oauth/token", data=form, auth=("demo", SECRET)).json()["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        answer = post(http, f"/v1/keys/{mighty['id']}/rotate")
    assert (answer.status_code, answer.json()["code"]) == (403, "SCOPES_BEYOND_YOURS")


def test_only_its_owner_rotates_a_key_but_everybody_of_the_tenant_may_revoke_it(
    door: FrontDoor, ours: httpx.Client
) -> None:
    colleague = NewClient(client_id="colleague", secret=Secret(SECRET), tenant="demo", scopes=tuple(BOTH))
    asyncio.run(provision(door.settings, [colleague], []))
    key = made(ours)
    with door.signed_in("colleague") as http:
        assert post(http, f"/v1/keys/{key['id']}/rotate").json()["code"] == "KEY_NOT_YOURS"
        assert http.delete(f"/v1/keys/{key['id']}").status_code == 204
    assert opens(door.url, key["secret"]) == 401


@dataclass(frozen=True)
class Given:
    """All a client can be given."""

    token: str
    refresh_token: str
    key: str

    def opens(self, url: str) -> set[int]:
        """Return how the gateway answers token and key."""
        by_token = httpx.get(f"{url}/v1/keys", headers={"Authorization": f"Bearer {self.token}"})
        return {by_token.status_code, opens(url, self.key)}

    def renews(self, url: str, client: str, secret: str) -> int:
        form = {"grant_type": "refresh_token", "refresh_token": self.refresh_token}
        return httpx.post(f"{url}/oauth/token", data=form, auth=(client, secret)).status_code


def given_to(door: FrontDoor, client: str) -> Given:
    new = NewClient(client_id=client, secret=Secret(SECRET), tenant="demo", scopes=tuple(BOTH))
    asyncio.run(provision(door.settings, [new], []))
    form = {"grant_type": "client_credentials", "scope": "keys:read keys:write offline_access"}
    with door.client() as http:
        body = http.post("/oauth/token", data=form, auth=(client, SECRET)).json()
        http.headers["Authorization"] = f"Bearer {body['access_token']}"
        return Given(body["access_token"], body["refresh_token"], made(http)["secret"])


def ends_everywhere(given: Given, urls: tuple[str, ...]) -> bool:
    wait_for(
        lambda: [given.opens(url) for url in urls] == [{401}] * 2, "every gateway refusing", timeout_s=1.0
    )
    return True


def test_disabling_a_client_ends_all_it_was_given_everywhere(door: FrontDoor, other_url: str) -> None:
    urls = (door.url, other_url)
    given = given_to(door, "leaver")
    assert [given.opens(url) for url in urls] == [{200}] * 2, "both remember it now"
    asyncio.run(provisioning.disable_client(door.settings, "leaver"))
    assert ends_everywhere(given, urls)
    assert {given.renews(url, "leaver", SECRET) for url in urls} <= {400, 401}


def test_a_secret_that_leaked_is_rotated_with_all_that_was_given_for_it(
    door: FrontDoor, other_url: str
) -> None:
    urls = (door.url, other_url)
    given = given_to(door, "leaker")
    assert [given.opens(url) for url in urls] == [{200}] * 2
    rotation = provisioning.rotate_client_secret(door.settings, "leaker", revoke=True)
    secret = asyncio.run(rotation).reveal()
    assert ends_everywhere(given, urls)
    assert {given.renews(url, "leaker", secret) for url in urls} <= {400, 401}

    def let_in_again() -> bool:
        with httpx.Client(base_url=other_url) as http:
            form = {"grant_type": "client_credentials"}
            token = http.post("/oauth/token", data=form, auth=("leaker", secret)).json()["access_token"]
            return http.get("/v1/keys", headers={"Authorization": f"Bearer {token}"}).status_code == 200

    wait_for(let_in_again, "a new token being good", timeout_s=10)


def test_an_expired_key_is_refused_even_while_it_is_remembered(door: FrontDoor, ours: httpx.Client) -> None:
    secret = made(ours, expires_at_ms=int(time.time() * 1_000) + 1_500)["secret"]
    assert opens(door.url, secret) == 200
    wait_for(lambda: opens(door.url, secret) == 401, "the key expiring", timeout_s=5)


def test_no_log_holds_a_key_and_the_ledger_only_its_hash(door: FrontDoor, ours: httpx.Client) -> None:
    secret = made(ours)["secret"]
    opens(door.url, secret)
    opens(door.url, secret[:-1])
    assert secret.split("_", 2)[2][:-1] not in door.gateway.log.read_text()

    async def rows() -> str:
        async with open_pool(door.settings, {}) as postgres, postgres.acquire() as connection:
            return str([tuple(row) for row in await connection.fetch("select * from api_keys")])

    stored = asyncio.run(rows())
    assert secret.split("_", 2)[1] in stored
    assert secret.split("_", 2)[2] not in stored
