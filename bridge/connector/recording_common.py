"""What every recording format shares: the result, lines with their numbers, and how a bad one is named."""

from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

import numpy as np

from core.errors.exceptions import Invalid
from core.model.ticks import Ticks

DAY_MS: Final = 86_400_000
FOREX_DIGITS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One symbol's rows in the order of time. utc_offset_s: None when the file does not say."""

    symbol: str
    rows: Ticks
    digits: int
    utc_offset_s: int | None


def bad_line(name: PurePath, line: int, what: str) -> Invalid:
    return Invalid(f"{name.name}, line {line}: {what}", code="BAD_RECORDING")


def numbered_lines(text: bytes) -> list[tuple[int, bytes]]:
    """Return the lines that are not blank, with their numbers."""
    return [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def in_order(rows: Ticks) -> Ticks:
    """Return rows in the order of time, those of one millisecond as they stood."""
    times = rows["time_msc"]
    if np.all(times[1:] >= times[:-1]):
        return rows
    return rows[np.argsort(times, kind="stable")]


def is_number(cell: bytes) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def shown(cell: bytes) -> str:
    """Return a cell as it may stand in a message."""
    return repr(cell.decode(errors="replace")[:40])
