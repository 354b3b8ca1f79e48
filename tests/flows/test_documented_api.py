"""docs/api.md is executable: its examples run against a gateway and a worker, and its table of codes is the code's.

Blocks run in the order of the page, those of one language in one session. `setup` blocks say where things are, which
the tests say instead; a `refused` example is answered with an error, an `either` one may be.
"""

import ast
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from core.errors import exceptions
from core.errors.categories import HANDLING
from core.errors.exceptions import TickgateError
from gateway.problems import CODE_OF_STATUS, STATUS_OF_CODE
from tests import gateways
from tests.engines import House
from tests.gateways import DAY_MS, SECRET, FrontDoor, tick

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "api.md").read_text()
BLOCKS: Final = re.findall(r"^```(sh|python)(?: (\w+))?\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
SHELL: Final = [(mark, text) for language, mark, text in BLOCKS if language == "sh" and mark != "setup"]
PYTHON: Final = [text for language, mark, text in BLOCKS if language == "python" and mark != "setup"]
ROWS: Final = re.findall(r"^\| ((?:`[A-Z_]+`(?:, )?)+) \| (\d{3}) \|", PAGE, re.MULTILINE)
STATUSES: Final = {code: int(status) for codes, status in ROWS for code in re.findall(r"[A-Z_]+", codes)}
SHELL_S_MAX: Final = 60
ANSWERABLE: Final = {
    error.__name__
    for error in vars(exceptions).values()
    if isinstance(error, type) and issubclass(error, TickgateError)
} - {"Corrupt", "Misconfigured", "Defect", "UnknownOutcome", "TickgateError"}
SOURCES: Final = ("gateway", "workers", "core/adapters")
NOT_OVER_HTTP: Final = {
    # The bridge's, the cache's, a venue's and the operator's own.
    "BACKUP_DISTURBED",
    "CACHE_AWAY",
    "CLIENT_DISABLED",
    "CLIENT_EXISTS",
    "CLIENT_NOT_FOUND",
    "DRAIN_TIMEOUT",
    "LEASE_HELD",
    "LEDGER_BUSY",
    "MIGRATION_RUNNING",
    "NO_VIEW",
    "ORDER_KEY_MISSING",
    "PORT_TAKEN",
    "PROBE_TIMEOUT",
    "RELAY_UNAVAILABLE",
    "RESTORE_WHILE_RUNNING",
    "TERMINAL_BUSY",
    "TERMINAL_NOT_CONNECTED",
}

ROWS_STORED: Final = [
    *(tick(seq, DAY_MS + seq * 1_000, 1.1, 1.2) for seq in range(1, 6)),
    *(tick(seq, DAY_MS + seq * 1_000, 150.1, 150.2, symbol="USDJPY") for seq in range(6, 9)),
]


@pytest.fixture(scope="module")
def door(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    door = gateways.build(tmp_path_factory.mktemp("documented"), house, redis_database=12)
    with gateways.running(door, ROWS_STORED) as door:
        yield door


@pytest.mark.parametrize("shell", ["bash"])
def test_the_documented_commands_do_what_is_said(door: FrontDoor, tmp_path: Path, shell: str) -> None:
    (tmp_path / "credentials.curl").write_text(f'user = "demo:{SECRET}"\n')
    # A refusal ends curl as a failure; what it sends and prints is as documented.
    lines = ["set -eu -o pipefail", 'curl() { command curl --fail-with-body -S "$@"; }']
    for mark, text in SHELL:
        if mark:
            lines += ["set +e", text.strip(), "code=$?", "set -e"]
            lines += ["test $code -eq 22"] if mark == "refused" else []
        else:
            lines.append(text)
    ended = subprocess.run(
        [shell, "-c", "\n".join(lines)],
        env={**os.environ, "API": door.url, "CREDENTIALS": str(tmp_path / "credentials.curl")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SHELL_S_MAX,
        check=False,
    )
    assert ended.returncode == 0, f"{ended.stdout[-1500:]}\n{ended.stderr[-1500:]}"


def test_the_documented_programs_do_what_is_said(
    door: FrontDoor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"API": door.url, "CLIENT": ("demo", SECRET)}
    exec("import json, pathlib", names)  # what the setup block imports
    try:
        for text in PYTHON:
            exec(compile(text, "docs/api.md", "exec"), names)
        assert [one["seq"] for one in names["ticks"]] == [1, 2, 3, 4, 5]  # type: ignore[attr-defined]
        assert names["count"] == 5
    finally:
        names["http"].close()  # type: ignore[attr-defined]


def test_every_code_a_caller_may_see_is_documented() -> None:
    raised = {code for code, _ in _raised()} | {"INVALID_BODY", "UNKNOWN_PARAMETER", "MISSING_PARAMETER"}
    assert raised - NOT_OVER_HTTP - set(STATUSES) == set()


def test_every_documented_code_has_the_status_that_is_said() -> None:
    expected = {
        code: HANDLING[getattr(exceptions, name).category].http_status for code, name in _raised()
    } | STATUS_OF_CODE
    expected |= {code: status for status, code in CODE_OF_STATUS.items()}
    assert {code: STATUSES[code] for code in expected.keys() & STATUSES.keys()} == {
        code: expected[code] for code in expected.keys() & STATUSES.keys()
    }


def _raised() -> Iterator[tuple[str, str]]:
    """Yield code and class of every error raised by name where a caller's request may come."""
    for source in SOURCES:
        for path in (ROOT / source).rglob("*.py"):
            if "embedded" in path.parts:
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                    continue
                for keyword in node.keywords if node.func.id in ANSWERABLE else ():
                    if keyword.arg == "code" and isinstance(keyword.value, ast.Constant):
                        yield str(keyword.value.value), node.func.id
