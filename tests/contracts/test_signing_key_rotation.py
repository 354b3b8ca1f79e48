"""Rotating the keys that sign access tokens: nobody is refused for it, and nothing has to be restarted."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from joserfc.jwk import OKPKey

from core.cli.main import tickgate
from core.errors.exceptions import Conflict, Misconfigured
from core.infrastructure import signing_keys
from core.infrastructure.config_manager import write_settings_file
from core.infrastructure.signing_keys import NOTICE_S, OVERLAP_S, Key, new_key, read_keys, rotated, write_keys
from tests import gateways
from tests.engines import House, wait_for
from tests.gateways import FrontDoor
from tests.token_attacks import Forge, unpad


def ids(keys: object) -> list[str]:
    assert isinstance(keys, list)
    return [key["kid"] for key in keys]


def pair(now_s: float = 0.0) -> list[Key]:
    return [new_key(now_s), new_key(now_s)]


def test_the_next_key_signs_and_another_is_published() -> None:
    old = pair()
    now = rotated(old, 10_000)
    assert now[0]["kid"] == old[1]["kid"]
    assert "d" in now[1]
    assert now[1]["kid"] not in ids(old)
    assert now[2]["kid"] == old[0]["kid"]


def test_the_private_half_of_a_key_that_signed_is_destroyed() -> None:
    assert "d" not in rotated(pair(), 10_000)[2]


def test_a_key_signs_only_once_everybody_can_know_it() -> None:
    keys = pair(10_000)
    with pytest.raises(Conflict) as refused:
        rotated(keys, 10_000 + NOTICE_S - 1)
    assert refused.value.code == "KEY_TOO_NEW"
    assert rotated(keys, 10_000 + NOTICE_S)[0]["kid"] == keys[1]["kid"]


def test_a_key_that_signed_stays_until_its_last_token_is_forgotten() -> None:
    first = pair()
    second = rotated(first, 10_000)
    third = rotated(second, 10_000 + OVERLAP_S - 1)
    assert first[0]["kid"] in [key["kid"] for key in third]
    fourth = rotated(second, 10_000 + OVERLAP_S)
    assert first[0]["kid"] not in [key["kid"] for key in fourth]


def test_the_overlap_is_longer_than_a_token_and_a_verifiers_memory() -> None:
    longest_life_s, memory_s = 900, 60
    assert longest_life_s + memory_s <= OVERLAP_S


def test_a_single_key_first_gets_a_next_one() -> None:
    key = OKPKey.generate_key("Ed25519", auto_kid=True).as_dict(private=True)
    keys = rotated([key], 10_000)
    assert (keys[0]["kid"], len(keys)) == (key["kid"], 2)
    assert rotated(keys, 10_000 + NOTICE_S)[0]["kid"] == keys[1]["kid"]


def test_the_public_half_holds_nothing_private(tmp_path: Path) -> None:
    keys = pair()
    write_keys(tmp_path / "key.json", tmp_path / "jwks.json", keys)
    text = (tmp_path / "jwks.json").read_text()
    assert all(str(key["d"]) not in text and str(key["kid"]) in text for key in keys)
    assert '"d"' not in text


@pytest.mark.parametrize(
    "text", ["", "{}", '{"keys":[]}', '{"keys":[{"kid":"x"}]}', '{"keys":[{"d":"x"}]}', "[]"]
)
def test_a_file_that_cannot_sign_is_said_to_be_so(tmp_path: Path, text: str) -> None:
    (tmp_path / "key.json").write_text(text)
    with pytest.raises(Misconfigured):
        read_keys(tmp_path / "key.json")


def test_an_operator_rotates_and_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key_file, jwks_file = tmp_path / "key.json", tmp_path / "jwks.json"
    write_keys(key_file, jwks_file, pair())
    auth = {"key_file": str(key_file), "jwks_file": str(jwks_file)}
    write_settings_file(tmp_path / "settings.json", {"auth": auth})
    monkeypatch.setenv("TICKGATE_SETTINGS_FILE", str(tmp_path / "settings.json"))
    before = ids(list(read_keys(key_file)))
    answer = CliRunner().invoke(tickgate, ["signing-keys", "rotate", "--json"], standalone_mode=False)
    assert answer.exception is None
    rows = json.loads(answer.output)["keys"]
    assert [row["role"] for row in rows] == ["signing", "next", "retired"]
    assert [rows[0]["kid"], rows[2]["kid"]] == before[::-1]
    listed = CliRunner().invoke(tickgate, ["signing-keys", "list", "--json"], standalone_mode=False)
    assert json.loads(listed.output)["keys"] == rows
    assert ids(json.loads(jwks_file.read_text())["keys"]) == ids(rows)
    again = CliRunner().invoke(tickgate, ["signing-keys", "rotate"], standalone_mode=False)
    assert isinstance(again.exception, Conflict)


@pytest.fixture(scope="module")
def door(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    root = tmp_path_factory.mktemp("rotation")
    door = gateways.build(root, house, redis_database=4, processes=2)
    write_keys(root / "key.json", root / "jwks.json", pair())
    with gateways.gateway_alone(door) as door:
        yield door


def kid_of(token: str) -> str:
    return str(json.loads(unpad(token.split(".")[0]))["kid"])


def published(http: httpx.Client) -> list[str]:
    return ids(http.get("/.well-known/jwks.json").json()["keys"])


class Traffic:
    """Somebody who never stops asking for tokens and using all they were given."""

    def __init__(self, door: FrontDoor) -> None:
        self._door = door
        self.refused: list[str] = []
        self.tokens: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            # A connection of its own each time, so that every gateway process is met.
            with self._door.client() as http:
                try:
                    self.tokens.append(self._door.token())
                    for token in (self.tokens[0], self.tokens[-1]):
                        answer = http.get("/v1/keys", headers={"Authorization": f"Bearer {token}"})
                        if answer.status_code != 200:
                            self.refused.append(f"{answer.status_code} {answer.text}")
                except (AssertionError, httpx.HTTPError) as e:
                    self.refused.append(repr(e))
            self._stop.wait(0.02)

    def __enter__(self) -> "Traffic":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def test_rotations_under_traffic_refuse_nobody(door: FrontDoor) -> None:
    key_file, jwks_file = door.root / "key.json", door.root / "jwks.json"
    with Traffic(door) as traffic, door.client() as http:
        wait_for(lambda: traffic.tokens or traffic.refused, "the first token")
        for _ in range(2):
            signing = signing_keys.rotate(key_file, jwks_file)[0]["kid"]
            wait_for(
                lambda kid=signing: kid_of(traffic.tokens[-1]) == kid or traffic.refused,
                "the new key signing",
                20,
            )
            # As if its notice had passed.
            aged = [{**key, "published_at": 0} for key in read_keys(key_file)]
            write_keys(key_file, jwks_file, aged)
        first, last = kid_of(traffic.tokens[0]), kid_of(traffic.tokens[-1])
        wait_for(lambda: len(published(http)) == 4, "all keys being published")
        assert {first, last} <= set(published(http))
    assert traffic.refused == []
    assert first != last


def test_a_key_that_was_dropped_verifies_no_more(door: FrontDoor) -> None:
    key_file, jwks_file = door.root / "key.json", door.root / "jwks.json"
    gone = OKPKey.generate_key("Ed25519", auto_kid=True)
    keys = read_keys(key_file)
    forged = Forge(gone).signed()
    write_keys(key_file, jwks_file, [*keys, {**gone.as_dict(private=False), "retired_at": int(time.time())}])
    with door.client() as http:

        def status() -> int:
            return http.get("/v1/jobs/0", headers={"Authorization": f"Bearer {forged}"}).status_code

        wait_for(lambda: status() != 401, "the key being known", 10)
        write_keys(key_file, jwks_file, keys)
        wait_for(lambda: status() == 401, "the key being forgotten, and what it verified with it", 10)


def test_the_metadata_says_where_things_are(door: FrontDoor) -> None:
    with door.client() as http:
        answer = http.get("/.well-known/oauth-authorization-server")
        told = answer.json()
        for name in ("token_endpoint", "revocation_endpoint", "introspection_endpoint"):
            assert http.post(told[name], data={"grant_type": "x", "token": "x"}).status_code == 401
        keys = http.get(told["jwks_uri"])
    assert told["issuer"] == "tickgate"
    assert keys.headers["cache-control"] == f"public, max-age={NOTICE_S}"
    assert told["grant_types_supported"] == ["client_credentials", "refresh_token"]
