"""Read the ends of log files: as they are, or their gist for somebody who wants to know what went wrong."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

TAIL_BYTES_MAX: Final = 16 * 1024**2
LINE_BYTES: Final = 512
"""What a line is taken to be long at most, on average."""
GIST_LINES_READ: Final = 400
GIST_LINE_LENGTH_MAX: Final = 300
TRACEBACK_LINES: Final = (" ", "\t", "Traceback (", "During handling of", "The above exception was")


def tail_of(path: Path, lines: int) -> list[str]:
    """Return the last lines of a file, none when it is not there."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - min(TAIL_BYTES_MAX, lines * LINE_BYTES)))
            found = file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    return found[-lines:] if lines else []


def gist_of(path: Path, lines: int) -> list[str]:
    """Return the last lines that say something to a reader: of a traceback only what was raised."""
    return gist(tail_of(path, GIST_LINES_READ))[-lines:]


def gist(lines: Sequence[str]) -> list[str]:
    """Leave out frames of tracebacks and repetitions, and write our own JSON lines as text."""
    said: list[str] = []
    for line in lines:
        text = _text(line)
        if text and text not in said[-4:]:
            said.append(text[:GIST_LINE_LENGTH_MAX])
    return said


def _text(line: str) -> str:
    if not line.strip() or line.startswith(TRACEBACK_LINES):
        return ""
    try:
        fields = json.loads(line)
    except ValueError:
        return line.rstrip()
    return _sentence(fields) if isinstance(fields, dict) and "event" in fields else line.rstrip()


def _sentence(fields: Mapping[str, Any]) -> str:
    known = {"event", "at", "level", "process", "logger", "exception"}
    rest = [f"{name}={value}" for name, value in fields.items() if name not in known]
    raised = _last_line(str(fields.get("exception", "")))
    words = [str(fields.get("level", "")), _last_line(str(fields["event"])), *rest, raised]
    return " ".join(word for word in words if word)


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")
