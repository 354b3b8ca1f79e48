"""Reads MT5's bar CSV, for tests of what writes it."""

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any, Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def read_bars(text: bytes) -> list[dict[str, Any]]:
    """Return bars in the names of the API; `spread` is in points."""
    return [_bar(row) for row in csv.DictReader(io.StringIO(text.decode(), newline=""), delimiter="\t")]


def _bar(row: dict[str, str]) -> dict[str, Any]:
    moment = f"{row['<DATE>']} {row.get('<TIME>', '00:00:00')}"
    at = datetime.strptime(moment, "%Y.%m.%d %H:%M:%S").replace(tzinfo=UTC)
    return {
        "time_ms": (at - EPOCH) // timedelta(milliseconds=1),
        **{name: float(row[f"<{name.upper()}>"]) for name in ("open", "high", "low", "close")},
        "tick_volume": int(row["<TICKVOL>"]),
        "volume": float(row["<VOL>"]),
        "spread": int(row["<SPREAD>"]),
    }
