"""What a user is shown of a log when a program does not start."""

import json
from pathlib import Path

from core.infrastructure.deployment.log_files import gist, tail_of


def test_the_tail_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("".join(f"line {number}\n" for number in range(10_000)))
    assert tail_of(log, 2) == ["line 9998", "line 9999"]
    assert tail_of(log, 0) == []
    assert tail_of(tmp_path / "none.log", 2) == []


def test_of_a_traceback_only_what_was_raised_is_shown() -> None:
    lines = [
        "Traceback (most recent call last):",
        '  File "a.py", line 1, in <module>',
        "    x",
        "ValueError: no",
    ]
    assert gist(lines) == ["ValueError: no"]


def test_of_a_structured_line_its_words_are_shown() -> None:
    fields = {"event": "queue.lost", "level": "error", "at": "2026", "queue": "database"}
    line = json.dumps({**fields, "exception": "Traceback\n x\nOSError: gone"})
    assert gist([line]) == ["error queue.lost queue=database OSError: gone"]


def test_what_is_repeated_is_shown_once() -> None:
    assert gist(["same", "same", "same"]) == ["same"]
