"""`tickgate clients` and `tickgate keys` on a real ledger: what they print, what they never print, how they refuse."""

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.adapters.postgres.pool import open_pool
from core.cli import main
from core.infrastructure.config_manager import write_settings_file
from core.settings import Secret, Settings
from tests.engines import House, new_databases

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def shared(house: House, tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Path]:
    settings = new_databases(house)
    tree = msgspec.json.decode(
        msgspec.json.encode(
            settings, enc_hook=lambda value: value.reveal() if isinstance(value, Secret) else None
        )
    )
    path = tmp_path_factory.mktemp("access") / "settings.json"
    write_settings_file(path, tree)
    return settings, path


@pytest.fixture
def run(
    shared: tuple[Settings, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    settings, path = shared
    monkeypatch.setitem(os.environ, "TICKGATE_SETTINGS_FILE", str(path))
    monkeypatch.setitem(os.environ, "TICKGATE_DATA_DIR", str(path.parent / "nothing"))
    asyncio.run(_empty(settings))

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main._run(list(arguments))
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


async def _empty(settings: Settings) -> None:
    async with open_pool(settings, {}) as postgres, postgres.acquire() as connection:
        await connection.execute("truncate api_clients, api_keys, revocations cascade")


def fetched(shared: tuple[Settings, Path], query: str) -> list[dict[str, Any]]:
    async def fetch() -> list[dict[str, Any]]:
        async with open_pool(shared[0], {}) as postgres, postgres.acquire() as connection:
            return [dict(row) for row in await connection.fetch(query)]

    return asyncio.run(fetch())


def added(run: Run, name: str = "robot", *options: str) -> dict[str, Any]:
    code, out, err = run("clients", "add", name, "--tenant", "demo", "--json", *options)
    assert (code, err) == (0, "")
    return dict(json.loads(out))


def key_of(run: Run, client: str = "robot", *options: str) -> dict[str, Any]:
    code, out, err = run("keys", "add", "--client", client, "--name", "k", "--json", *options)
    assert (code, err) == (0, "")
    return dict(json.loads(out))


def test_a_client_is_added_with_a_secret_of_which_only_the_hash_is_kept(
    run: Run, shared: tuple[Settings, Path]
) -> None:
    client = added(run, "robot", "--scope", "market:read", "--scope", "keys:read")
    (row,) = fetched(shared, "select * from api_clients")
    assert (row["client_id"], row["tenant"], row["scopes"]) == (
        "robot",
        "demo",
        ["keys:read", "market:read"],
    )
    assert row["secret_hash"] == hashlib.sha256(client["client_secret"].encode()).hexdigest()
    assert len(client["client_secret"]) == 43


def test_without_json_the_secret_stands_alone_on_its_line(run: Run) -> None:
    code, out, err = run("clients", "add", "robot", "--tenant", "demo")
    assert (code, [line.split()[0] for line in out.splitlines()]) == (0, ["client_id", "client_secret"])
    assert err == "keep it: it is not shown again\n"


def test_a_client_that_is_there_is_not_added_again(run: Run) -> None:
    added(run)
    code, out, err = run("clients", "add", "robot", "--tenant", "rival")
    assert (code, out, err) == (1, "", "error: there is a client 'robot' already\n")


@pytest.mark.parametrize("name", ["", "a b", "-a", "a" * 64, "ä", "a\nb"])
def test_a_name_that_would_trouble_somebody_is_refused(run: Run, name: str) -> None:
    code, out, _ = run("clients", "add", "--tenant", "demo", "--", name)
    assert (code, out) == (2, "")


def test_clients_are_listed_without_anything_secret(run: Run) -> None:
    secret = added(run)["client_secret"]
    assert run("clients", "disable", "robot")[0] == 0
    code, out, _ = run("clients", "list", "--json")
    (client,) = json.loads(out)["clients"]
    assert (code, client["client_id"], client["tenant"]) == (0, "robot", "demo")
    assert client["disabled_at_ms"] - client["created_at_ms"] < 60_000
    text = run("clients", "list")[1]
    assert "robot" in text
    assert hashlib.sha256(secret.encode()).hexdigest() not in out + text


def test_nothing_to_list_is_said(run: Run) -> None:
    assert run("clients", "list")[1] == "there are no clients yet\n"
    assert run("keys", "list", "--tenant", "demo")[1] == "demo has no keys\n"


def test_disabling_ends_tokens_and_keys(run: Run, shared: tuple[Settings, Path]) -> None:
    added(run)
    key = key_of(run)
    assert run("clients", "disable", "robot") == (0, "robot is disabled\n", "")
    revoked = {row["credential"] for row in fetched(shared, "select credential from revocations")}
    assert revoked == {"client:robot", f"key:{key['id']}"}
    assert fetched(shared, "select * from api_keys where revoked_at is null") == []


@pytest.mark.parametrize("revoke", [True, False])
def test_a_rotated_secret_ends_what_was_issued_only_if_told_to(
    run: Run, shared: tuple[Settings, Path], revoke: bool
) -> None:
    before = added(run)["client_secret"]
    key_of(run)
    code, out, _ = run("clients", "rotate-secret", "robot", "--json", *(["--revoke"] if revoke else []))
    after = json.loads(out)["client_secret"]
    assert (code, after != before) == (0, True)
    (row,) = fetched(shared, "select secret_hash from api_clients")
    assert row["secret_hash"] == hashlib.sha256(after.encode()).hexdigest()
    assert bool(fetched(shared, "select * from api_keys where revoked_at is null")) is not revoke
    assert bool(fetched(shared, "select * from revocations")) is revoke


@pytest.mark.parametrize("client", ["robot", "other"])
def test_the_deployments_own_client_keeps_its_rotated_secret(run: Run, tmp_path: Path, client: str) -> None:
    added(run, client)
    write_settings_file(tmp_path / "credentials.json", {"client_id": "robot", "client_secret": "old"})
    out = run("clients", "rotate-secret", client, "--json", "--data-dir", str(tmp_path))[1]
    kept = json.loads((tmp_path / "credentials.json").read_text())["client_secret"]
    assert kept == (json.loads(out)["client_secret"] if client == "robot" else "old")


def test_a_disabled_client_gets_no_new_secret_and_no_key(run: Run) -> None:
    added(run)
    run("clients", "disable", "robot")
    assert run("clients", "rotate-secret", "robot") == (1, "", "error: the client 'robot' is disabled\n")
    code, _, err = run("keys", "add", "--client", "robot", "--name", "k")
    assert (code, err) == (1, "error: there is no client 'robot'\n")


@pytest.mark.parametrize("command", [("clients", "disable"), ("clients", "rotate-secret")])
def test_a_client_that_is_not_there_is_said(run: Run, command: tuple[str, str]) -> None:
    assert run(*command, "nobody") == (1, "", "error: there is no client 'nobody'\n")


def test_a_key_has_its_clients_scopes_unless_told_fewer(run: Run) -> None:
    added(run, "robot", "--scope", "market:read", "--scope", "keys:read")
    key = key_of(run)
    assert (key["scopes"], key["tenant"], key["subject"]) == (["keys:read", "market:read"], "demo", "robot")
    assert 89 < (key["expires_at_ms"] / 1_000 - time.time()) / 86_400 < 91
    assert key_of(run, "robot", "--scope", "keys:read", "--days", "1")["scopes"] == ["keys:read"]


def test_a_key_never_has_more_than_its_client(run: Run) -> None:
    added(run, "robot", "--scope", "market:read")
    code, out, err = run("keys", "add", "--client", "robot", "--name", "k", "--scope", "keys:write")
    assert (code, out, err) == (1, "", "error: 'robot' does not have the scopes keys:write\n")


@pytest.mark.parametrize("days", ["0", "367"])
def test_a_key_lives_a_year_at_most(run: Run, days: str) -> None:
    assert run("keys", "add", "--client", "robot", "--name", "k", "--days", days)[0] == 2


def test_keys_are_listed_without_their_secrets(run: Run) -> None:
    added(run)
    key = key_of(run)
    out = run("keys", "list", "--tenant", "demo", "--json")[1]
    secret = key.pop("secret")
    assert json.loads(out)["keys"] == [key]
    text = run("keys", "list", "--tenant", "demo")[1]
    assert key["id"] in text
    assert secret not in out + text


def test_a_rotated_key_is_the_same_key_with_another_secret(run: Run, shared: tuple[Settings, Path]) -> None:
    added(run)
    key = key_of(run)
    code, out, _ = run("keys", "rotate", key["id"], "--grace-minutes", "5", "--json")
    rotated = json.loads(out)
    assert (code, rotated["id"], rotated["secret"] != key["secret"]) == (0, key["id"], True)
    (row,) = fetched(shared, "select prefix, old_prefix from api_keys")
    assert (row["prefix"], row["old_prefix"]) == (rotated["prefix"], key["prefix"])


def test_a_revoked_key_is_announced(run: Run, shared: tuple[Settings, Path]) -> None:
    added(run)
    key = key_of(run)
    assert run("keys", "revoke", key["id"]) == (0, f"{key['id']} is revoked\n", "")
    assert [row["credential"] for row in fetched(shared, "select credential from revocations")] == [
        f"key:{key['id']}"
    ]


@pytest.mark.parametrize("command", ["rotate", "revoke"])
@pytest.mark.parametrize("key_id", ["x", "01a20682-ab80-7cb6-bbe7-7922c4714c86"])
def test_a_key_that_is_not_there_is_said(run: Run, command: str, key_id: str) -> None:
    code, out, err = run("keys", command, key_id)
    assert (code, out, err.startswith("error: there is no")) == (1, "", True)
    assert err.count("\n") == 1


def test_a_ledger_that_is_away_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "TICKGATE_POSTGRES_PORT", "1")
    assert run("clients", "list") == (1, "", "error: the ledger does not answer\n")
