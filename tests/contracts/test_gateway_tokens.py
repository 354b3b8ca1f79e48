"""The token endpoint and what its tokens open: RFC 6749, and the usual attacks on JSON Web Tokens."""

import json
from collections.abc import Iterator

import httpx
import pytest
from joserfc.jwk import OKPKey

from tests import gateways
from tests.engines import House
from tests.gateways import SCOPES, SECRET, FrontDoor, basic
from tests.token_attacks import ATTACKS, Forge, unpad

HEADER_BYTES_MAX = 32 * 1024
ALL_SCOPES = " ".join(sorted(SCOPES))

GRANT = {"grant_type": "client_credentials"}


@pytest.fixture(scope="module")
def door(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    root = tmp_path_factory.mktemp("tokens")
    with gateways.running(gateways.build(root, house, redis_database=4), []) as door:
        yield door


@pytest.fixture(scope="module")
def http(door: FrontDoor) -> Iterator[httpx.Client]:
    with door.client() as http:
        yield http


@pytest.fixture(scope="module")
def good(door: FrontDoor) -> str:
    return door.token()


def test_a_client_gets_a_short_lived_token_by_basic_authentication(http: httpx.Client) -> None:
    answer = http.post("/oauth/token", data=GRANT, auth=("demo", SECRET))
    body = answer.json()
    assert answer.status_code == 200
    assert (body["token_type"], body["expires_in"], body["scope"]) == ("Bearer", 900, ALL_SCOPES)
    assert answer.headers["cache-control"] == "no-store"


def test_a_client_may_send_its_secret_in_the_form(http: httpx.Client) -> None:
    form = {**GRANT, "client_id": "demo", "client_secret": SECRET}
    assert http.post("/oauth/token", data=form).status_code == 200


def test_the_token_says_who_for_whom_and_until_when(http: httpx.Client, good: str) -> None:
    header, claims = (json.loads(unpad(part)) for part in good.split(".")[:2])
    assert (header["typ"], header["alg"]) == ("at+jwt", "Ed25519")
    assert (claims["iss"], claims["aud"], claims["sub"], claims["tenant"]) == (
        "tickgate",
        "tickgate-api",
        "demo",
        "demo",
    )
    assert claims["scope"] == ALL_SCOPES
    assert claims["exp"] - claims["iat"] == 900
    assert claims["jti"]


@pytest.mark.parametrize(
    ("form", "auth", "status", "error"),
    [
        (GRANT, ("demo", "wrong"), 401, "invalid_client"),
        (GRANT, ("nobody", SECRET), 401, "invalid_client"),
        (GRANT, ("", ""), 401, "invalid_client"),
        (GRANT, ("demo\0", SECRET), 401, "invalid_client"),
        (GRANT, None, 401, "invalid_client"),
        ({"grant_type": "password"}, ("demo", SECRET), 400, "unsupported_grant_type"),
        ({"scope": "market:read"}, ("demo", SECRET), 400, "invalid_request"),
        ({**GRANT, "scope": "market:read admin"}, ("demo", SECRET), 400, "invalid_scope"),
    ],
)
def test_refusals_are_those_of_the_standard(
    http: httpx.Client, form: dict[str, str], auth: tuple[str, str] | None, status: int, error: str
) -> None:
    answer = http.post("/oauth/token", data=form, auth=auth)
    assert (answer.status_code, answer.json()["error"]) == (status, error), answer.text


def test_an_unknown_client_is_refused_like_a_wrong_secret(http: httpx.Client) -> None:
    wrong, unknown = (
        http.post("/oauth/token", data=GRANT, headers={"Authorization": basic(name, "x")})
        for name in ("demo", "nobody")
    )
    assert wrong.content == unknown.content
    assert wrong.status_code == unknown.status_code


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b'{"grant_type":"client_credentials"}', "application/json"),
        (b"grant_type=client_credentials&grant_type=client_credentials", "application/x-www-form-urlencoded"),
        (b"\xff\xfe", "application/x-www-form-urlencoded"),
        (b"", "application/x-www-form-urlencoded"),
    ],
)
def test_a_body_that_is_no_form_is_an_invalid_request(http: httpx.Client, content: bytes, kind: str) -> None:
    headers = {"Content-Type": kind, "Authorization": basic("demo", SECRET)}
    answer = http.post("/oauth/token", content=content, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request"), answer.text


def test_a_body_too_large_is_refused_before_it_is_read(http: httpx.Client) -> None:
    answer = http.post("/oauth/token", content=b"a" * 9_000, headers={"Authorization": basic("demo", SECRET)})
    assert (answer.status_code, answer.json()["code"]) == (413, "BODY_TOO_LARGE")


def test_a_body_that_hides_its_size_is_cut_off_at_the_limit(http: httpx.Client) -> None:
    answer = http.post("/oauth/token", content=(b"a" * 1_000 for _ in range(20)))
    assert (answer.status_code, answer.json()["code"]) == (413, "BODY_TOO_LARGE")


def test_without_a_token_the_caller_is_told_which_kind_is_needed(http: httpx.Client) -> None:
    answer = http.get("/v1/symbols")
    assert (answer.status_code, answer.json()["code"]) == (401, "TOKEN_MISSING")
    assert answer.headers["www-authenticate"] == 'Bearer realm="tickgate"'


def test_a_token_without_the_scope_is_forbidden(http: httpx.Client, door: FrontDoor) -> None:
    answer = http.get("/v1/symbols", headers={"Authorization": f"Bearer {door.token('scopeless')}"})
    assert (answer.status_code, answer.json()["code"]) == (403, "INSUFFICIENT_SCOPE")
    assert 'scope="market:read"' in answer.headers["www-authenticate"]


@pytest.fixture(scope="module")
def forge(door: FrontDoor) -> Forge:
    return Forge(OKPKey.import_key(json.loads((door.root / "key.json").read_text())["keys"][0]))


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_forged_or_foreign_token_opens_nothing(http: httpx.Client, forge: Forge, attack: str) -> None:
    token = ATTACKS[attack](forge)
    if len(token) > HEADER_BYTES_MAX:
        # The server ends what sends heads that large; a smaller one, still far too long, gets to the verifier.
        token = token[:HEADER_BYTES_MAX]
    answer = http.get("/v1/symbols", headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.json()["code"]) == (401, "INVALID_TOKEN"), answer.text
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_what_every_attack_is_made_of_opens_the_door(http: httpx.Client, forge: Forge) -> None:
    answer = http.get("/v1/symbols", headers={"Authorization": f"bearer {forge.signed()}"})
    assert answer.status_code == 200


def test_two_credentials_are_one_too_many(http: httpx.Client, good: str) -> None:
    headers = [("Authorization", f"Bearer {good}"), ("Authorization", f"Bearer {good}")]
    answer = http.get("/v1/symbols", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "CREDENTIALS_AMBIGUOUS")


@pytest.mark.parametrize("scheme", ["Basic", "Token", ""])
def test_only_the_bearer_scheme_carries_tokens(http: httpx.Client, good: str, scheme: str) -> None:
    answer = http.get("/v1/symbols", headers={"Authorization": f"{scheme} {good}".strip()})
    assert answer.status_code == 401


def test_a_token_in_the_query_is_an_unknown_parameter(http: httpx.Client, good: str) -> None:
    assert http.get("/v1/symbols", params={"access_token": good}).status_code == 401


def test_no_log_line_holds_a_token_or_a_secret(http: httpx.Client, door: FrontDoor, good: str) -> None:
    http.get("/v1/symbols", headers={"Authorization": f"Bearer {good}"})
    text = door.gateway.log.read_text() + door.worker.log.read_text()
    assert SECRET not in text
    assert good.split(".")[2] not in text
