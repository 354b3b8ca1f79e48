"""Recordings as LEAN keeps quotes: `milliseconds since midnight,bid,ask`; day and symbol stand in the name."""

import io
import re
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Final

import numpy as np
import numpy.typing as npt

from bridge.connector.recording_common import (
    DAY_MS,
    Recording,
    bad_line,
    in_order,
    is_number,
    numbered_lines,
    shown,
)
from core.errors.exceptions import Invalid
from core.model.ticks import FLAG_ASK, FLAG_BID, TICK_DTYPE

LEAN_NAME: Final = re.compile(r"(?P<date>\d{8})_(?P<symbol>[a-z0-9.]+)_tick_quote\.csv", re.IGNORECASE)
LEAN_PLAIN_NAME: Final = re.compile(r"(?P<date>\d{8})_quote(\.csv|\.zip)?", re.IGNORECASE)
LEAN_OFFSETS: Final = {"oanda": 0, "fxcm": -18_000}
"""Data providers of LEAN files and the zone of their clock."""
LEAN_DTYPE: Final = np.dtype([("ms", "<i8"), ("bid", "<f8"), ("ask", "<f8")])


def read_lean(text: bytes, name: PurePath) -> Recording:
    date, symbol = _lean_name(name)
    quotes = _lean_quotes(text, name)
    rows = np.zeros(len(quotes), TICK_DTYPE)
    rows["time_msc"] = date * 1_000 + quotes["ms"]
    rows["time"] = rows["time_msc"] // 1_000
    rows["bid"] = quotes["bid"]
    rows["ask"] = quotes["ask"]
    rows["flags"] = FLAG_BID | FLAG_ASK
    digits = max(len(cell.partition(b".")[2]) for cell in text[:1_000].split(b"\n")[0].strip().split(b","))
    return Recording(symbol=symbol, rows=in_order(rows), digits=digits, utc_offset_s=_lean_offset(name))


def _lean_name(name: PurePath) -> tuple[int, str]:
    """Return the day's first second and the symbol: 20140506_eurusd_tick_quote.csv, eurusd/20140506_quote.csv."""
    for part in reversed(name.parts):
        if found := LEAN_NAME.fullmatch(part):
            return _lean_day(found["date"], name), found["symbol"].upper()
    for parent, part in zip(name.parts, name.parts[1:], strict=False):
        if found := LEAN_PLAIN_NAME.fullmatch(part):
            return _lean_day(found["date"], name), parent.upper()
    raise Invalid(
        f"{name.name} is no recording: neither MetaTrader's tick export (<DATE> <TIME> ...), nor JSON lines, nor a"
        " quote file named like 20140506_eurusd_tick_quote.csv",
        code="BAD_RECORDING",
    )


def _lean_day(date: str, name: PurePath) -> int:
    try:
        return int(datetime.strptime(date, "%Y%m%d").replace(tzinfo=UTC).timestamp())
    except ValueError as e:
        raise Invalid(f"{name.name}: {date} is no date", code="BAD_RECORDING") from e


def _lean_quotes(text: bytes, name: PurePath) -> npt.NDArray[np.void]:
    if not text.strip():
        return np.empty(0, LEAN_DTYPE)
    try:
        quotes = np.loadtxt(
            io.BytesIO(text), LEAN_DTYPE, comments=None, delimiter=",", ndmin=1, encoding="ascii"
        )
    except (ValueError, UnicodeError) as e:
        raise _lean_error(text, name, e) from e
    if not ((quotes["ms"] >= 0) & (quotes["ms"] < DAY_MS)).all():
        at = int(np.argmax((quotes["ms"] < 0) | (quotes["ms"] >= DAY_MS)))
        raise bad_line(name, numbered_lines(text)[at][0], f"{quotes['ms'][at]} is no millisecond of a day")
    return quotes


def _lean_error(text: bytes, name: PurePath, error: Exception) -> Invalid:
    for number, line in numbered_lines(text):
        cells = line.strip().split(b",")
        if len(cells) != 3 or not all(is_number(cell) for cell in cells) or not cells[0].strip().isdigit():
            return bad_line(name, number, f"{shown(line.strip())} is not `ms,bid,ask`")
    return Invalid(f"{name.name}: {error}", code="BAD_RECORDING")


def _lean_offset(name: PurePath) -> int | None:
    for part in reversed(name.parts):
        for provider, offset_s in LEAN_OFFSETS.items():
            if part.lower() == provider or provider in re.split(r"[^a-z0-9]+", part.lower()):
                return offset_s
    return None
