"""Recordings as MetaTrader itself exports ticks: tab separated, an empty cell for what has not changed."""

import re
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Final

import numpy as np
import numpy.typing as npt

from bridge.connector.recording_common import (
    DAY_MS,
    FOREX_DIGITS,
    Recording,
    bad_line,
    in_order,
    is_number,
    numbered_lines,
    shown,
)
from core.model.ticks import TICK_DTYPE

EXPORT_COLUMNS: Final = ("<DATE>", "<TIME>", "<BID>", "<ASK>", "<LAST>", "<VOLUME>", "<FLAGS>")
CELL_BYTES: Final = 32

Text = npt.NDArray[np.bytes_]


def read_export(text: bytes, name: PurePath) -> Recording:
    lines = numbered_lines(text)
    separator = b"\t" if b"\t" in lines[0][1] else b","
    header = tuple(cell.decode(errors="replace").strip() for cell in lines[0][1].split(separator))
    if header != EXPORT_COLUMNS:
        raise bad_line(
            name, lines[0][0], f"the columns are {' '.join(header)}, not {' '.join(EXPORT_COLUMNS)}"
        )
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
    return Recording(symbol=_export_symbol(name), rows=in_order(rows), digits=digits, utc_offset_s=None)


def _cells(lines: list[tuple[int, bytes]], separator: bytes, name: PurePath) -> Text:
    columns = len(EXPORT_COLUMNS)
    split = [line.split(separator) for _, line in lines]
    for (number, _), cells in zip(lines, split, strict=True):
        if len(cells) != columns:
            raise bad_line(name, number, f"{len(cells)} columns instead of {columns}")
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
        raise bad_line(name, numbers[at], f"{shown(times[at])} is no time of the form 00:00:00.000")
    return np.asarray(day_ms[day_of] + ms, dtype=np.int64)


def _day_ms(day: bytes, at: int, numbers: list[int], name: PurePath) -> int:
    try:
        return int(datetime.strptime(day.decode(), "%Y.%m.%d").replace(tzinfo=UTC).timestamp()) * 1_000
    except ValueError as e:
        raise bad_line(name, numbers[at], f"{shown(day)} is no date of the form 2024.01.02") from e


def _floats(cells: Text, numbers: list[int], column: str, name: PurePath) -> npt.NDArray[np.float64]:
    filled = np.where(cells == b"", b"0", cells)
    try:
        return filled.astype(np.float64)
    except ValueError:
        at = next(at for at, cell in enumerate(filled.tolist()) if not is_number(cell))
        raise bad_line(name, numbers[at], f"{column} is {shown(cells[at])}, which is no number") from None


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
