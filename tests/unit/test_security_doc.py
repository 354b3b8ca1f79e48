"""docs/security.md names tests as proof: every one of them exists, and every row of its tables of risks has one."""

import ast
import re
from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parents[1]
TEXT: Final = (TESTS.parent / "docs" / "security.md").read_text()
NAMED: Final = re.findall(r"`([\w/]+\.py)::(test_\w+)`", TEXT)


def test_every_named_test_exists() -> None:
    missing = [f"{file}::{name}" for file, name in NAMED if name not in _tests_of(file)]
    assert missing == []


def test_every_risk_of_the_top_ten_has_a_proof() -> None:
    proved = [
        number
        for number, proof in re.findall(r"^\| API(\d+) .*\|(.*)\|$", TEXT, re.MULTILINE)
        if "::" in proof
    ]
    assert proved == [str(number) for number in range(1, 11)]


def _tests_of(file: str) -> set[str]:
    path = TESTS / file
    if not path.is_file():
        return set()
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, functions)}
