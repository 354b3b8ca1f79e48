"""The Central Hub and its neighbours: what is opened, in which order, and what is refused with which words."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from core.errors.categories import HANDLING, Category
from core.errors.exceptions import Defect, Misconfigured, TickgateError
from core.infrastructure.central_hub import open_hub, opening_order
from core.infrastructure.config_manager import load_settings, write_settings_file
from core.infrastructure.import_manager import resolve
from core.infrastructure.providers import PROVIDERS, Provider
from core.settings import Secret, Settings

OPENED: list[str] = []


def table(**requires: set[str]) -> dict[str, Provider]:
    return {
        name: Provider(name=name, opens=f"{__name__}:open_{name}", requires=frozenset(needed))
        for name, needed in requires.items()
    }


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=lambda provider: provider.name)
def test_every_provider_names_something_that_opens(provider: Provider) -> None:
    assert callable(resolve(provider.opens))


def test_what_is_required_is_opened_first_and_nothing_else() -> None:
    providers = table(a=set(), b={"a"}, c={"b"}, unasked=set())
    assert [provider.name for provider in opening_order({"c"}, providers)] == ["a", "b", "c"]


def test_a_circle_is_named() -> None:
    with pytest.raises(Defect, match="circle"):
        opening_order({"a"}, table(a={"b"}, b={"a"}))


def test_an_unknown_service_is_named() -> None:
    with pytest.raises(Defect, match="'telepathy'"):
        opening_order({"telepathy"})


@asynccontextmanager
async def open_first(_settings: Settings, _services: Mapping[str, Any]) -> AsyncIterator[str]:
    OPENED.append("+first")
    yield "first"
    OPENED.append("-first")


@asynccontextmanager
async def open_second(_settings: Settings, services: Mapping[str, Any]) -> AsyncIterator[str]:
    assert services["first"] == "first"
    OPENED.append("+second")
    yield "second"
    OPENED.append("-second")


async def test_services_close_in_reverse(monkeypatch: pytest.MonkeyPatch) -> None:
    OPENED.clear()
    for name, provider in table(first=set(), second={"first"}).items():
        monkeypatch.setitem(PROVIDERS, name, provider)
    async with open_hub(Settings(), {"second"}) as hub:
        assert hub["second"] == "second"
        with pytest.raises(Defect, match="did not open 'redis'"):
            hub["redis"]
    assert OPENED == ["+first", "+second", "-second", "-first"]


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("no-colon", "module:attribute"),
        ("core.nowhere:thing", "names no module"),
        ("core.settings:Nothing", "has no 'Nothing'"),
    ],
)
def test_a_bad_reference_is_explained(reference: str, words: str) -> None:
    with pytest.raises(Misconfigured, match=words):
        resolve(reference)


def test_a_missing_package_is_named_as_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needs_terminal.py").write_text("import MetaTrader5\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Misconfigured, match="pip install MetaTrader5"):
        resolve("needs_terminal:thing")


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    write_settings_file(file, {"bridge": {"port": 9001, "host": "::1"}, "postgres": {"password": "hidden"}})
    assert file.stat().st_mode & 0o777 == 0o600
    settings = load_settings({"TICKGATE_SETTINGS_FILE": str(file), "TICKGATE_BRIDGE_PORT": "9002"})
    assert (settings.bridge.host, settings.bridge.port) == ("::1", 9002)
    assert settings.postgres.password.reveal() == "hidden"


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"TICKGATE_BRIDGE_PROT": "1"}, "unknown field `prot`"),
        ({"TICKGATE_NONSENSE": "1"}, "TICKGATE_NONSENSE is no setting"),
        ({"TICKGATE_BRIDGE_PORT": "many"}, "Expected `int`"),
        ({"TICKGATE_BRIDGE_PORT": "0"}, "bridge.port"),
        ({"TICKGATE_SETTINGS_FILE": "/nowhere/settings.json"}, "cannot be read"),
    ],
)
def test_a_bad_setting_refuses_to_start(variables: dict[str, str], words: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        load_settings(variables)
    assert words in refused.value.public


def test_a_secret_never_shows_itself() -> None:
    settings = load_settings({"TICKGATE_POSTGRES_PASSWORD": "correct horse"})
    assert "correct horse" not in repr(settings) + str(settings.postgres.password) + f"{settings}"
    assert settings.postgres.password.reveal() == "correct horse"
    assert not Secret()


def test_every_error_has_a_category_with_handling() -> None:
    pending, found = [TickgateError], set()
    while pending:
        error = pending.pop()
        pending += error.__subclasses__()
        found.add(error.category)
        assert error.__doc__
    assert found <= set(HANDLING)
    assert set(HANDLING) == set(Category)


@pytest.mark.parametrize(
    ("room", "strangers"),
    [
        (
            "gateway.app",
            {"numpy", "clickhouse_connect", "weaviate", "arango", "chdb", "pyarrow", "pandas", "bridge"},
        ),
        (
            "bridge.__main__",
            {"starlette", "granian", "arq", "chdb", "pandas", "weaviate", "arango", "gateway"},
        ),
        (
            "bridge.connector.__main__",
            {"starlette", "granian", "arq", "redis", "asyncpg", "clickhouse_connect", "chdb"},
        ),
    ],
)
def test_a_process_loads_only_what_it_needs(room: str, strangers: set[str]) -> None:
    needs = f"from {room} import NEEDS\n" if room != "bridge.connector.__main__" else "NEEDS = ()\n"
    script = (
        f"import json, sys, {room}\n{needs}"
        "from core.infrastructure.central_hub import opening_order\n"
        "from core.infrastructure.import_manager import resolve\n"
        "[resolve(provider.opens) for provider in opening_order(NEEDS)]\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert strangers & set(json.loads(done.stdout)) == set()
