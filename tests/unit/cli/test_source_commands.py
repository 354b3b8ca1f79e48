"""`tickgate sources` on a real ledger: a token is printed once, and a closed source stays closed."""

import asyncio
import hashlib
import json
import os
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
    path = tmp_path_factory.mktemp("sources") / "settings.json"
    write_settings_file(path, tree)
    return settings, path


@pytest.fixture
def run(
    shared: tuple[Settings, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    settings, path = shared
    monkeypatch.setitem(os.environ, "TICKGATE_SETTINGS_FILE", str(path))
    monkeypatch.setitem(os.environ, "TICKGATE_DATA_DIR", str(path.parent / "nothing"))
    fetched(settings, "truncate sources cascade")

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main._run(["sources", *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def fetched(settings: Settings, query: str) -> list[dict[str, Any]]:
    async def fetch() -> list[dict[str, Any]]:
        async with open_pool(settings, {}) as postgres, postgres.acquire() as connection:
            return [dict(row) for row in await connection.fetch(query)]

    return asyncio.run(fetch())


def added(run: Run, *options: str) -> dict[str, Any]:
    code, out, err = run("add", "feed", "--tenant", "demo", "--json", *options)
    assert (code, err) == (0, "")
    return dict(json.loads(out))


def test_a_source_is_added_with_a_token_of_which_only_the_hash_is_kept(
    run: Run, shared: tuple[Settings, Path]
) -> None:
    source = added(run, "--title", "IC Markets, live")
    (row,) = fetched(shared[0], "select name, tenant, title, token_hash from sources")
    assert row == {
        "name": source["name"],
        "tenant": "demo",
        "title": "IC Markets, live",
        "token_hash": hashlib.sha256(source["token"].encode()).hexdigest(),
    }
    assert source["name"].startswith("feed-")


def test_without_json_the_token_stands_alone_on_its_line(run: Run) -> None:
    code, out, err = run("add", "feed", "--tenant", "demo")
    assert (code, [line.split()[0] for line in out.splitlines()]) == (0, ["source", "token"])
    assert err == "keep it: it is not shown again\n"


def test_sources_are_listed_without_their_tokens_and_only_their_tenants(run: Run) -> None:
    source = added(run)
    token = source.pop("token")
    assert json.loads(run("list", "--tenant", "demo", "--json")[1]) == {"sources": [source]}
    text = run("list", "--tenant", "demo")[1]
    assert source["name"] in text
    assert token not in text
    assert run("list", "--tenant", "rival") == (0, "rival has no sources\n", "")


def test_a_rotated_source_has_another_token(run: Run, shared: tuple[Settings, Path]) -> None:
    source = added(run)
    code, out, _ = run("rotate", source["name"], "--tenant", "demo", "--json")
    token = json.loads(out)["token"]
    assert (code, token != source["token"]) == (0, True)
    (row,) = fetched(shared[0], "select token_hash from sources")
    assert row["token_hash"] == hashlib.sha256(token.encode()).hexdigest()


def test_a_closed_source_gets_no_new_token(run: Run) -> None:
    name = added(run)["name"]
    assert run("close", name, "--tenant", "demo") == (0, f"{name} is closed\n", "")
    assert run("rotate", name, "--tenant", "demo") == (1, "", f"error: '{name}' is closed\n")


@pytest.mark.parametrize("command", ["rotate", "close"])
def test_a_source_of_another_tenant_is_not_found(run: Run, command: str) -> None:
    name = added(run)["name"]
    assert run(command, name, "--tenant", "rival") == (1, "", "error: there is no such source\n")


@pytest.mark.parametrize("label", ["", "A", "a b", "a" * 41, "ä", "a\n"])
def test_a_label_that_no_name_can_begin_with_is_refused(run: Run, label: str) -> None:
    code, out, err = run("add", "--tenant", "demo", "--", label)
    assert (code, out, err.startswith("error: a label is")) == (1, "", True)


@pytest.mark.parametrize("title", ["a\nb", "a" * 121])
def test_a_title_of_several_lines_or_too_long_is_refused(run: Run, title: str) -> None:
    code, out, err = run("add", "feed", "--tenant", "demo", "--title", title)
    assert (code, out, err.startswith("error: a title is")) == (1, "", True)
