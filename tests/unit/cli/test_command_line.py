"""The command line itself: quick to load, complete, and without a traceback whatever happens."""

import importlib
import subprocess
import sys
from pathlib import Path

import click
import pytest

from core.cli import main, verify
from core.cli.terminal import table
from core.errors.exceptions import Unavailable
from core.messages.certificates import Certificate

HEAVY = ("asyncio", "asyncpg", "clickhouse_connect", "numpy", "psutil", "rich", "supervisor", "joserfc")


def certificate(**changes: object) -> Certificate:
    fields: dict[str, object] = {
        "source": "demo",
        "epoch": 1,
        "rows": 10,
        "distinct": 10,
        "first_seq": 1,
        "last_seq": 10,
        "quarantined": 0,
        "dropped": 0,
        "uncertified": 0,
        "green": True,
        "problems": [],
        "days": [],
    }
    return Certificate(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_listed_command_exists(name: str) -> None:
    command = importlib.import_module(f"core.cli.{name.replace('-', '_')}").command
    assert isinstance(command, click.Command)
    assert command.get_short_help_str(200).rstrip(".") == main.COMMANDS[name].rstrip(".") or command.help


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from core.cli import main; main._run(['--help']);"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_our_own_errors_become_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise Unavailable("the ledger does not answer", detail="a secret")

    monkeypatch.setattr(main.tickgate, "main", fail)
    assert main._run([]) == 1
    assert capsys.readouterr().err == "error: the ledger does not answer\n"


def test_unexpected_errors_become_one_line_and_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise ZeroDivisionError("never seen")

    monkeypatch.setattr(main.tickgate, "main", fail)
    assert main._run([]) == 1
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    file = Path(text.rsplit(" ", 1)[1].strip())
    try:
        assert "never seen" in file.read_text()
        assert file.stat().st_mode & 0o077 == 0
    finally:
        file.unlink()


def test_a_table_is_aligned_and_never_cut_off() -> None:
    long = "x" * 200
    assert table(("a", "b"), [(long, None), ("y", 12)]).splitlines()[1] == f"{long}  -"


def test_a_red_certificate_makes_the_verdict_red() -> None:
    red = certificate(green=False, problems=["3 seqs are missing inside the span"])
    lines = list(verify.describe([certificate(), red]))
    assert lines[-1].startswith("RED: 1 of 2")
    assert any("3 seqs are missing" in line for line in lines)


def test_nothing_stored_is_said_instead_of_proved() -> None:
    assert list(verify.describe([certificate(rows=0)]))[-1].startswith("there are no ticks yet")


def test_all_green_says_how_many_ticks() -> None:
    assert list(verify.describe([certificate(), certificate(epoch=2)]))[-1].startswith("GREEN: 20 ticks")
