"""Recordings as arrays: MetaTrader's own tick export, tick lines as JSON, and quote files in the LEAN layout.

Prices are what float(text) gives. Each reader is told bytes and names, and says which line is wrong.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from core.errors.exceptions import Invalid
from core.model.ticks import FLAG_ASK, FLAG_BID, TICK_DTYPE, Ticks

EXPORT_COLUMNS: Final = ("<DATE>", "<TIME>", "<BID>", "<ASK>", "<LAST>", "<VOLUME>", "<FLAGS>")
EXPORT_DATE: Final = re.compile(rb"\d{4}\.\d\d\.\d\d")
EXPORT_TIME: Final = re.compile(rb"\d\d:\d\d:\d\d(\.\d{3})?")
CELL_BYTES: Final = 32
LEAN_NAME: Final = re.compile(r"(?P<date>\d{8})_(?P<symbol>[a-z0-9.]+)_tick_quote\.csv", re.IGNORECASE)
LEAN_PLAIN_NAME: Final = re.compile(r"(?P<date>\d{8})_quote(\.csv|\.zip)?", re.IGNORECASE)
LEAN_OFFSETS: Final = {"oanda": 0, "fxcm": -18_000}
"""Data providers of LEAN files and the zone of their clock."""
LEAN_DTYPE: Final = np.dtype([("ms", "<i8"), ("bid", "<f8"), ("ask", "<f8")])
DAY_MS: Final = 86_400_000
FOREX_DIGITS: Final = 5

Text = npt.NDArray[np.bytes_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One symbol's rows in the order of time. utc_offset_s: None when the file does not say."""

    symbol: str
    rows: Ticks
    digits: int
    utc_offset_s: int | None


def read(content: bytes, name: PurePath) -> Recording:
    """Read one file. name: its path, or its archive's path joined with its name inside.

    Raises: Invalid, with the line that is wrong.
    """
    text = _utf8(content)
    head = text[:4_096].lstrip()
    if head.startswith(b"<DATE>"):
        recording = _read_export(text, name)
    elif head.startswith(b"{"):
        recording = _read_json(text, name)
    else:
        recording = _read_lean(text, name)
    if not len(recording.rows):
        raise Invalid(f"{name.name} holds no ticks", code="BAD_RECORDING")
    return recording


def _utf8(content: bytes) -> bytes:
    for mark, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if content.startswith(mark):
            return content[2:].decode(encoding, "replace").encode()
    return content.removeprefix(b"\xef\xbb\xbf")


def _bad(name: PurePath, line: int, what: str) -> Invalid:
    return Invalid(f"{name.name}, line {line}: {what}", code="BAD_RECORDING")


def _lines(text: bytes) -> list[tuple[int, bytes]]:
    """Return the lines that are not blank, with their numbers."""
    return [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def _sorted(rows: Ticks) -> Ticks:
    times = rows["time_msc"]
    if np.all(times[1:] >= times[:-1]):
        return rows
    return rows[np.argsort(times, kind="stable")]


# -- MetaTrader's tick export ------------------------------------------------------------------------


def _read_export(text: bytes, name: PurePath) -> Recording:
    lines = _lines(text)
    separator = b"\t" if b"\t" in lines[0][1] else b","
    header = tuple(cell.decode(errors="replace").strip() for cell in lines[0][1].split(separator))
    if header != EXPORT_COLUMNS:
        raise _bad(name, lines[0][0], f"the columns are {' '.join(header)}, not {' '.join(EXPORT_COLUMNS)}")
    cells = _cells(lines[1:], separator, name)
    numbers = [number for number, _ in lines[1:]]
    rows = np.zeros(len(cells), TICK_DTYPE)
    rows["time_msc"] = _export_times(cells[:, 0], cells[:, 1], numbers, name)
    rows["time"] = rows["time_msc"] // 1_000
    for column, field in ((2, "bid"), (3, "ask"), (4, "last"), (5, "volume_real")):
        rows[field] = _carried(_floats(cells[:, column], numbers, header[column], name), cells[:, column])
    rows["volume"] = rows["volume_real"].astype(np.uint64)
    rows["flags"] = _floats(cells[:, 6], numbers, header[6], name).astype(np.uint32)
    digits = _digits(cells[:, 2:5])
    return Recording(symbol=_export_symbol(name), rows=_sorted(rows), digits=digits, utc_offset_s=None)


def _cells(lines: list[tuple[int, bytes]], separator: bytes, name: PurePath) -> Text:
    columns = len(EXPORT_COLUMNS)
    split = [line.split(separator) for _, line in lines]
    for (number, _), cells in zip(lines, split, strict=True):
        if len(cells) != columns:
            raise _bad(name, number, f"{len(cells)} columns instead of {columns}")
    if not split:
        return np.empty((0, columns), f"S{CELL_BYTES}")
    return np.char.strip(np.array(split, dtype=f"S{CELL_BYTES}"))


def _export_times(dates: Text, times: Text, numbers: list[int], name: PurePath) -> npt.NDArray[np.int64]:
    # Few different dates, and times that differ in every row: the ones one by one, the others as a matrix of digits.
    days, day_of = np.unique(dates, return_inverse=True)
    day_ms = np.array(
        [_day_ms(day, int(np.argmax(dates == day)), numbers, name) for day in days], dtype=np.int64
    )
    padded = np.where(np.char.str_len(times) == 8, np.char.add(times, b".000"), times).astype("S13")
    digits = np.ascontiguousarray(padded).view(np.uint8).reshape(len(times), 13).astype(np.int64) - ord("0")
    shape_ok = (digits[:, [2, 5]] == ord(":") - ord("0")).all(axis=1) & (digits[:, 8] == ord(".") - ord("0"))
    numeric = digits[:, [0, 1, 3, 4, 6, 7, 9, 10, 11]]
    good = shape_ok & ((numeric >= 0) & (numeric <= 9)).all(axis=1) & (digits[:, 12] == -ord("0"))
    weights = np.array([36_000_000, 3_600_000, 600_000, 60_000, 10_000, 1_000, 100, 10, 1], dtype=np.int64)
    ms = numeric @ weights
    good &= (ms < DAY_MS) & (numeric[:, 2] < 6) & (numeric[:, 4] < 6)
    if not good.all():
        at = int(np.argmin(good))
        raise _bad(name, numbers[at], f"{_show(times[at])} is no time of the form 00:00:00.000")
    return np.asarray(day_ms[day_of] + ms, dtype=np.int64)


def _day_ms(day: bytes, at: int, numbers: list[int], name: PurePath) -> int:
    try:
        return int(datetime.strptime(day.decode(), "%Y.%m.%d").replace(tzinfo=UTC).timestamp()) * 1_000
    except ValueError as e:
        raise _bad(name, numbers[at], f"{_show(day)} is no date of the form 2024.01.02") from e


def _floats(cells: Text, numbers: list[int], column: str, name: PurePath) -> npt.NDArray[np.float64]:
    filled = np.where(cells == b"", b"0", cells)
    try:
        return filled.astype(np.float64)
    except ValueError:
        at = next(at for at, cell in enumerate(filled.tolist()) if not _is_number(cell))
        raise _bad(name, numbers[at], f"{column} is {_show(cells[at])}, which is no number") from None


def _is_number(cell: bytes) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _carried(values: npt.NDArray[np.float64], cells: Text) -> npt.NDArray[np.float64]:
    """An empty cell means unchanged: repeat the value before it; before the first value it is 0."""
    present = np.where(cells != b"", np.arange(len(cells)), -1)
    source = np.maximum.accumulate(present) if len(present) else present
    return np.where(source >= 0, values[source], 0.0)


def _digits(cells: Text) -> int:
    texts = cells[:1_000].ravel().tolist()
    return max((len(text.partition(b".")[2]) for text in texts), default=FOREX_DIGITS)


def _export_symbol(name: PurePath) -> str:
    """EURUSD_202401020000_202401022359.csv is of EURUSD."""
    return re.sub(r"(_\d{12}(_\d{12})?|_\d{8}(_\d{8})?)$", "", _stem(name)) or _stem(name)


def _stem(name: PurePath) -> str:
    return name.name.partition(".csv")[0].partition(".txt")[0].partition(".zip")[0].partition(".gz")[0]


def _show(cell: bytes) -> str:
    return repr(cell.decode(errors="replace")[:40])


# -- tick lines as JSON ------------------------------------------------------------------------------


class _Hello(msgspec.Struct):
    symbol: str
    digits: int = FOREX_DIGITS
    server_utc_offset_s: int | None = None


class _Tick(msgspec.Struct):
    time_ms: int
    bid: str | float
    ask: str | float
    last: str | float
    volume: str | float
    flags: int


class _Kind(msgspec.Struct):
    type: str


def _read_json(text: bytes, name: PurePath) -> Recording:
    lines = _lines(text)
    hello = _decode(lines[0], _Hello, name)
    ticks = [_decode(line, _Tick, name) for line in lines[1:] if b'"tick"' in line[1]]
    for line in lines:
        if b'"tick"' not in line[1]:
            _decode(line, _Kind, name)
    rows = np.zeros(len(ticks), TICK_DTYPE)
    rows["time_msc"] = [tick.time_ms for tick in ticks]
    rows["time"] = rows["time_msc"] // 1_000
    numbers = [number for number, line in lines[1:] if b'"tick"' in line]
    columns: dict[str, Callable[[_Tick], Any]] = {
        "bid": lambda tick: tick.bid,
        "ask": lambda tick: tick.ask,
        "last": lambda tick: tick.last,
        "volume_real": lambda tick: tick.volume,
    }
    for field, value in columns.items():
        rows[field] = [
            _json_float(value(tick), field, at, name) for tick, at in zip(ticks, numbers, strict=True)
        ]
    rows["volume"] = rows["volume_real"].astype(np.uint64)
    rows["flags"] = [tick.flags for tick in ticks]
    return Recording(
        symbol=hello.symbol, rows=_sorted(rows), digits=hello.digits, utc_offset_s=hello.server_utc_offset_s
    )


def _decode(line: tuple[int, bytes], kind: Any, name: PurePath) -> Any:
    try:
        return msgspec.json.decode(line[1], type=kind)
    except msgspec.DecodeError as e:
        raise _bad(name, line[0], str(e)) from e


def _json_float(value: str | float, field: str, line: int, name: PurePath) -> float:
    try:
        return float(value)
    except ValueError:
        raise _bad(name, line, f"{field} is {value!r}, which is no number") from None


# -- quote files in the LEAN layout ------------------------------------------------------------------


def _read_lean(text: bytes, name: PurePath) -> Recording:
    date, symbol = _lean_name(name)
    quotes = _lean_quotes(text, name)
    rows = np.zeros(len(quotes), TICK_DTYPE)
    rows["time_msc"] = date * 1_000 + quotes["ms"]
    rows["time"] = rows["time_msc"] // 1_000
    rows["bid"] = quotes["bid"]
    rows["ask"] = quotes["ask"]
    rows["flags"] = FLAG_BID | FLAG_ASK
    digits = max(len(cell.partition(b".")[2]) for cell in text[:1_000].split(b"\n")[0].strip().split(b","))
    return Recording(symbol=symbol, rows=_sorted(rows), digits=digits, utc_offset_s=_lean_offset(name))


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
        raise _bad(name, _lines(text)[at][0], f"{quotes['ms'][at]} is no millisecond of a day")
    return quotes


def _lean_error(text: bytes, name: PurePath, error: Exception) -> Invalid:
    for number, line in _lines(text):
        cells = line.strip().split(b",")
        if len(cells) != 3 or not all(_is_number(cell) for cell in cells) or not cells[0].strip().isdigit():
            return _bad(name, number, f"{_show(line.strip())} is not `ms,bid,ask`")
    return Invalid(f"{name.name}: {error}", code="BAD_RECORDING")


def _lean_offset(name: PurePath) -> int | None:
    for part in reversed(name.parts):
        for provider, offset_s in LEAN_OFFSETS.items():
            if part.lower() == provider or provider in re.split(r"[^a-z0-9]+", part.lower()):
                return offset_s
    return None
