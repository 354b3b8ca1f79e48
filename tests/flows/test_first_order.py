"""The README's first order, pasted: filled, seen, and the next one denied by a kill switch; operators see both."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from core.cli import main
from core.infrastructure.config_manager import write_settings_file
from core.settings import Secret
from tests.engines import House
from tests.gateways import SECRET
from tests.trading_floors import Floor, running_floor

README: Final = (Path(__file__).parents[2] / "README.md").read_text()
TOUR_S_MAX: Final = 60


@pytest.fixture(scope="module")
def floor(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Floor]:
    with running_floor(tmp_path_factory.mktemp("first"), house) as running:
        yield running


@pytest.fixture(scope="module")
def answers(floor: Floor, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the README's commands print, in their order."""
    (tour,) = re.findall(r"^```sh tour\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    root = tmp_path_factory.mktemp("tour")
    (root / "credentials.curl").write_text(f'user = "demo:{SECRET}"\n')
    ended = subprocess.run(
        ["bash", "-c", f"set -eu -o pipefail\n{tour}"],
        env={**os.environ, "API": floor.door.url, "CREDENTIALS": str(root / "credentials.curl")},
        capture_output=True,
        text=True,
        timeout=TOUR_S_MAX,
        check=False,
    )
    assert ended.returncode == 0, f"{ended.stdout[-1500:]}\n{ended.stderr[-1500:]}"
    return [json.loads(line) for line in ended.stdout.splitlines() if line]


@pytest.fixture
def settings_file(floor: Floor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    hidden = msgspec.json.encode(
        floor.door.settings, enc_hook=lambda value: value.reveal() if isinstance(value, Secret) else None
    )
    path = tmp_path / "settings.json"
    write_settings_file(path, msgspec.json.decode(hidden))
    monkeypatch.setitem(os.environ, "TICKGATE_SETTINGS_FILE", str(path))
    monkeypatch.setitem(os.environ, "TICKGATE_DATA_DIR", str(tmp_path / "nothing"))
    return path


def test_the_readmes_first_order_is_filled_seen_and_audited(answers: list[dict[str, Any]]) -> None:
    order, events, positions, audit = answers[:4]
    assert order["state"] == "FILLED"
    assert [event["to"] for event in events["items"]] == ["QUEUED", "SENDING", "FILLED"]
    assert [(one["symbol"], one["volume"]) for one in positions["items"]] == [("EURUSD", "0.1")]
    assert len(audit["items"]) >= 3


def test_the_readmes_kill_switch_denies_the_next_order_and_is_released(answers: list[dict[str, Any]]) -> None:
    denied, released = answers[4:]
    assert [denial["code"] for denial in denied["denials"]] == ["TRADING_HALTED"]
    assert released["engaged"] is False


@pytest.mark.usefixtures("settings_file")
def test_an_operator_lists_orders_by_state(
    answers: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main._run(["orders", "list", "--tenant", "demo", "--state", "FILLED", "--json"]) == 0
    (order,) = json.loads(capsys.readouterr().out)["orders"]
    assert (order["id"], order["state"], order["symbol"]) == (answers[0]["id"], "FILLED", "EURUSD")
    assert main._run(["orders", "list", "--tenant", "demo"]) == 0
    assert "TRADING_HALTED" in capsys.readouterr().out
    assert main._run(["orders", "list", "--tenant", "demo", "--state", "UNKNOWN"]) == 0
    assert capsys.readouterr().out == "demo has no such orders\n"


@pytest.mark.usefixtures("settings_file")
def test_an_operator_sees_all_that_happened_to_an_order(
    answers: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main._run(["orders", "show", answers[0]["id"], "--tenant", "demo"]) == 0
    order = json.loads(capsys.readouterr().out)
    assert [event["new_state"] for event in order["events"]] == ["QUEUED", "SENDING", "FILLED"]
    assert main._run(["orders", "show", answers[0]["id"], "--tenant", "rival"]) == 1
    assert capsys.readouterr().err == f"error: there is no order '{answers[0]['id']}'\n"
