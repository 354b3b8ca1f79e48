"""Refresh tokens through the front door: they replace each other, and one used twice ends all that came from it."""

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from core.adapters.postgres.pool import open_pool
from core.infrastructure.central_hub import open_hub
from core.model.refresh_tokens import MARK, hash_of, new_text
from tests import gateways
from tests.engines import House, wait_for
from tests.gateways import SECRET, FrontDoor
from tests.token_attacks import unpad

OFFLINE = {"grant_type": "client_credentials", "scope": "market:read jobs:read offline_access"}
GONE = (400, "invalid_grant")


@pytest.fixture(scope="module")
def door(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    root = tmp_path_factory.mktemp("refresh")
    with gateways.gateway_alone(gateways.build(root, house, redis_database=4)) as door:
        yield door


@pytest.fixture(scope="module")
def http(door: FrontDoor) -> Iterator[httpx.Client]:
    with door.client() as http:
        yield http


def granted(http: httpx.Client, client: str = "demo") -> dict[str, Any]:
    answer = http.post("/oauth/token", data=OFFLINE, auth=(client, SECRET))
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def refresh(http: httpx.Client, text: str, client: str = "demo", **more: str) -> httpx.Response:
    form = {"grant_type": "refresh_token", "refresh_token": text, **more}
    return http.post("/oauth/token", data=form, auth=(client, SECRET))


def outcome(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json().get("error", "")


def opens(http: httpx.Client, body: dict[str, Any]) -> bool:
    """Whether its access token is let in; what it asks for is not there."""
    answer = http.get("/v1/jobs/0", headers={"Authorization": f"Bearer {body['access_token']}"})
    return answer.status_code != 401


def introspect(http: httpx.Client, text: str, client: str = "demo") -> dict[str, Any]:
    answer = http.post("/oauth/introspect", data={"token": text}, auth=(client, SECRET))
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def revoke(http: httpx.Client, text: str, client: str = "demo") -> int:
    return http.post("/oauth/revoke", data={"token": text}, auth=(client, SECRET)).status_code


def test_only_who_asks_for_offline_access_gets_a_refresh_token(http: httpx.Client) -> None:
    plain = http.post("/oauth/token", data={"grant_type": "client_credentials"}, auth=("demo", SECRET)).json()
    assert "refresh_token" not in plain
    assert "offline_access" not in plain["scope"]
    asked = granted(http)
    assert asked["refresh_token"].startswith(MARK)
    assert asked["scope"] == "jobs:read market:read offline_access"


def test_the_access_token_itself_does_not_carry_offline_access(http: httpx.Client) -> None:
    claims = json.loads(unpad(granted(http)["access_token"].split(".")[1]))
    assert claims["scope"] == "jobs:read market:read"


def test_a_refresh_answers_new_tokens_that_work(http: httpx.Client) -> None:
    first = granted(http)
    second = refresh(http, first["refresh_token"]).json()
    assert second["refresh_token"] != first["refresh_token"]
    assert opens(http, second)
    assert refresh(http, second["refresh_token"]).status_code == 200


def test_a_token_used_twice_ends_its_whole_family(http: httpx.Client) -> None:
    first = granted(http)
    second = refresh(http, first["refresh_token"]).json()
    assert opens(http, first)
    assert outcome(refresh(http, first["refresh_token"])) == GONE
    assert not opens(http, first), "an access token of the family"
    assert not opens(http, second), "the newest access token of the family"
    assert outcome(refresh(http, second["refresh_token"])) == GONE


def test_a_reuse_leaves_other_families_alone(http: httpx.Client) -> None:
    first, other = granted(http), granted(http)
    refresh(http, first["refresh_token"])
    refresh(http, first["refresh_token"])
    assert opens(http, other)
    assert refresh(http, other["refresh_token"]).status_code == 200


def test_of_many_uses_at_once_one_wins_and_the_others_end_the_family(
    http: httpx.Client, door: FrontDoor
) -> None:
    text = granted(http)["refresh_token"]

    def once(_number: int) -> httpx.Response:
        with door.client() as own:
            return refresh(own, text)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(once, range(8)))
    won = [answer.json() for answer in answers if answer.status_code == 200]
    assert len(won) == 1
    assert {outcome(answer) for answer in answers if answer.status_code != 200} == {GONE}
    assert not opens(http, won[0])
    assert outcome(refresh(http, won[0]["refresh_token"])) == GONE


def test_scopes_may_be_narrowed_for_one_token_and_come_back(http: httpx.Client) -> None:
    narrowed = refresh(http, granted(http)["refresh_token"], scope="market:read").json()
    assert narrowed["scope"] == "market:read offline_access"
    assert refresh(http, narrowed["refresh_token"]).json()["scope"] == "jobs:read market:read offline_access"


def test_scopes_are_never_widened(http: httpx.Client) -> None:
    first = granted(http)
    answer = refresh(http, first["refresh_token"], scope="market:read keys:write")
    assert outcome(answer) == (400, "invalid_scope")
    assert refresh(http, first["refresh_token"]).status_code == 200, "a refusal uses nothing up"


@pytest.mark.parametrize("client", ["rival", "scopeless"])
def test_a_refresh_token_is_its_clients_alone(http: httpx.Client, client: str) -> None:
    first = granted(http)
    assert outcome(refresh(http, first["refresh_token"], client)) == GONE
    assert refresh(http, first["refresh_token"]).status_code == 200


def test_a_refresh_takes_the_clients_secret(http: httpx.Client) -> None:
    form = {"grant_type": "refresh_token", "refresh_token": granted(http)["refresh_token"]}
    for auth in (("demo", "wrong"), ("demo", ""), None):
        assert outcome(http.post("/oauth/token", data=form, auth=auth)) == (401, "invalid_client")
    assert refresh(http, form["refresh_token"]).status_code == 200


@pytest.mark.parametrize("text", ["x", "tgr_", "tgr_" + "a" * 43, "tgr_" + "\u0660" * 43, "tgr_\0", "a.b.c"])
def test_what_is_no_refresh_token_is_an_invalid_grant(http: httpx.Client, text: str) -> None:
    assert outcome(refresh(http, text)) == GONE


def test_a_refresh_without_a_token_is_an_invalid_request(http: httpx.Client) -> None:
    answer = http.post("/oauth/token", data={"grant_type": "refresh_token"}, auth=("demo", SECRET))
    assert outcome(answer) == (400, "invalid_request")


def test_a_client_authenticates_one_way(http: httpx.Client) -> None:
    form = {"grant_type": "client_credentials", "client_id": "demo", "client_secret": SECRET}
    assert outcome(http.post("/oauth/token", data=form, auth=("demo", SECRET))) == (400, "invalid_request")
    form = {"grant_type": "client_credentials", "client_id": "rival"}
    assert outcome(http.post("/oauth/token", data=form, auth=("demo", SECRET))) == (400, "invalid_request")


def test_a_revoked_access_token_opens_nothing_and_its_family_lives(http: httpx.Client) -> None:
    first = granted(http)
    assert opens(http, first), "it is in the verifier's memory now"
    assert revoke(http, first["access_token"]) == 200
    assert not opens(http, first)
    assert refresh(http, first["refresh_token"]).status_code == 200


def test_a_revoked_refresh_token_takes_its_family_along(http: httpx.Client) -> None:
    first = granted(http)
    assert revoke(http, first["refresh_token"]) == 200
    assert not opens(http, first)
    assert outcome(refresh(http, first["refresh_token"])) == GONE


@pytest.mark.parametrize("client", ["rival", "scopeless"])
def test_nobody_revokes_what_is_not_theirs_nor_learns_of_it(http: httpx.Client, client: str) -> None:
    first = granted(http)
    assert revoke(http, first["access_token"], client) == 200
    assert revoke(http, first["refresh_token"], client) == 200
    assert opens(http, first)
    assert refresh(http, first["refresh_token"]).status_code == 200


@pytest.mark.parametrize("text", ["x", "a.b.c", new_text()], ids=["letter", "three-parts", "token"])
def test_revoking_what_is_no_token_is_no_error(http: httpx.Client, text: str) -> None:
    assert revoke(http, text) == 200


@pytest.mark.parametrize("route", ["revoke", "introspect"])
def test_who_asks_about_tokens_shows_a_secret(http: httpx.Client, route: str) -> None:
    for auth in (("demo", "wrong"), ("nobody", SECRET), None):
        answer = http.post(f"/oauth/{route}", data={"token": "x"}, auth=auth)
        assert outcome(answer) == (401, "invalid_client")
    answer = http.post(f"/oauth/{route}", data={}, auth=("demo", SECRET))
    assert outcome(answer) == (400, "invalid_request")


def test_introspection_tells_what_an_access_token_is_worth(http: httpx.Client) -> None:
    body = granted(http)
    claims = json.loads(unpad(body["access_token"].split(".")[1]))
    told = introspect(http, body["access_token"])
    same = ("client_id", "sub", "tenant", "scope", "exp", "iss", "aud", "jti")
    assert {name: told[name] for name in same} == {name: claims[name] for name in same}
    assert (told["active"], told["token_type"]) == (True, "Bearer")


def test_introspection_tells_what_a_refresh_token_is_worth(http: httpx.Client) -> None:
    body = granted(http)
    told = introspect(http, body["refresh_token"])
    assert (told["active"], told["client_id"], told["tenant"]) == (True, "demo", "demo")
    assert told["scope"] == "jobs:read market:read offline_access"
    assert told["exp"] - told["iat"] == pytest.approx(7 * 86_400, abs=2)


def test_introspection_within_the_tenant_is_not_bound_to_the_client(http: httpx.Client) -> None:
    assert introspect(http, granted(http)["access_token"], "scopeless")["active"] is True


def test_what_is_another_tenants_is_not_active(http: httpx.Client) -> None:
    body = granted(http)
    assert introspect(http, body["access_token"], "rival") == {"active": False}
    assert introspect(http, body["refresh_token"], "rival") == {"active": False}


def test_what_has_ended_is_not_active(http: httpx.Client) -> None:
    body = granted(http)
    newer = refresh(http, body["refresh_token"]).json()
    assert introspect(http, body["refresh_token"]) == {"active": False}
    assert introspect(http, newer["refresh_token"])["active"] is True, "asking about one is not using it"
    revoke(http, newer["refresh_token"])
    for text in (body["access_token"], newer["access_token"], newer["refresh_token"], "x"):
        assert introspect(http, text) == {"active": False}


def test_a_disabled_client_loses_its_refresh_tokens(http: httpx.Client, door: FrontDoor) -> None:
    body = granted(http, "rival")

    async def disable() -> None:
        async with open_hub(door.settings, {"identity"}) as hub:
            await hub["identity"].disable("rival")

    async def enable() -> None:
        async with open_pool(door.settings, {}) as postgres, postgres.acquire() as connection:
            await connection.execute("update api_clients set disabled_at = null where client_id = 'rival'")

    asyncio.run(disable())
    try:
        wait_for(lambda: not opens(http, body), "the access token being refused", 5)
        assert outcome(refresh(http, body["refresh_token"], "rival")) == (401, "invalid_client")
    finally:
        asyncio.run(enable())
    assert outcome(refresh(http, body["refresh_token"], "rival")) == GONE, "it ended for good"


def _run(door: FrontDoor, sql: str, *arguments: Any) -> Any:
    async def run() -> Any:
        async with open_pool(door.settings, {}) as postgres, postgres.acquire() as connection:
            return await connection.fetchval(sql, *arguments)

    return asyncio.run(run())


@pytest.mark.parametrize("table", ["refresh_families", "refresh_tokens"])
def test_an_expired_refresh_token_is_good_no_more(http: httpx.Client, door: FrontDoor, table: str) -> None:
    text = granted(http)["refresh_token"]
    which = (
        "token_hash = $1"
        if table == "refresh_tokens"
        else ("id = (select family from refresh_tokens where token_hash = $1)")
    )
    _run(door, f"update {table} set expires_at = now() - interval '1 second' where {which}", hash_of(text))
    assert outcome(refresh(http, text)) == GONE
    assert introspect(http, text) == {"active": False}


def test_only_what_nobody_can_use_any_more_is_purged(http: httpx.Client, door: FrontDoor) -> None:
    old, live = granted(http)["refresh_token"], granted(http)["refresh_token"]
    newer = refresh(http, live).json()["refresh_token"]
    _run(
        door,
        "update refresh_tokens set expires_at = now() - interval '1 s' where token_hash = $1",
        hash_of(old),
    )

    async def purge() -> int:
        async with open_hub(door.settings, {"grants"}) as hub:
            purged: int = await hub["grants"].purge_expired()
            return purged

    assert asyncio.run(purge()) >= 1
    kept = "select count(*) from refresh_tokens where token_hash = any($1::bytea[])"
    assert _run(door, kept, [hash_of(old)]) == 0
    assert _run(door, kept, [hash_of(live), hash_of(newer)]) == 2, "a used one is kept to be recognised"
    assert asyncio.run(purge()) == 0


def test_the_ledger_holds_no_refresh_token(http: httpx.Client, door: FrontDoor) -> None:
    text = granted(http)["refresh_token"]
    rows = _run(
        door,
        "select string_agg(t::text, ' ') || (select string_agg(f::text, ' ') from refresh_families f)"
        " from refresh_tokens t",
    )
    assert text not in rows
    assert text[4:20] not in rows


def test_a_tenant_sees_its_own_refresh_tokens_only(http: httpx.Client, door: FrontDoor) -> None:
    granted(http)

    async def counts(tenant: str) -> int:
        async with open_pool(door.settings, {}) as postgres, postgres.of_tenant(tenant) as connection:
            found: int = await connection.fetchval(
                "select (select count(*) from refresh_tokens) + (select count(*) from refresh_families)"
            )
            return found

    assert asyncio.run(counts("demo")) > 0
    assert asyncio.run(counts("stranger")) == 0


def test_no_log_line_holds_a_refresh_token(http: httpx.Client, door: FrontDoor) -> None:
    text = granted(http)["refresh_token"]
    refresh(http, text)
    refresh(http, text)
    log = door.gateway.log.read_text()
    assert "refresh.reused" in log
    assert MARK not in log
