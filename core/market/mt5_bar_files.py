"""Bars as MetaTrader 5 exports them, made of pages that come one after the other.

Tab separated; bars of a day or longer have no time. Prices and volumes are the shortest text that reads as the same
float64. The spread is the smallest of the bar in whole points, 0 where no tick had both prices. This module loads
pyarrow: only who writes such files imports it, through the Import Manager.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

DATE: Final = "<DATE>"
TIME: Final = "<TIME>"
VALUES: Final = ("<OPEN>", "<HIGH>", "<LOW>", "<CLOSE>", "<TICKVOL>", "<VOL>", "<SPREAD>")
PRICES: Final = ("open", "high", "low", "close")
DIGITS_MAX: Final = 10
NOISE: Final = 1e-12
"""How far, relative to itself, a price may lie from its decimal digits."""

Column = npt.NDArray[Any]


class BarCsvFile:
    """add: takes a page, an Arrow stream of bars, and returns its lines, the header before the first.

    daily: bars have a date only. digits: how many the symbol's prices have, None to tell it from the first bars;
    halved: the bars' own prices lie between points and do not tell it.
    """

    def __init__(self, *, daily: bool, digits: int | None = None, halved: bool = False) -> None:
        self._daily = daily
        self._digits = digits
        self._telling = ("spread_min",) if halved else ("spread_min", *PRICES)
        self._begun = False

    def add(self, page: bytes) -> bytes:
        with pa.ipc.open_stream(page) as reader:
            table = reader.read_all()
        head = b"" if self._begun else self._header()
        self._begun = True
        return head + (self._lines(table) if table.num_rows else b"")

    def finish(self) -> bytes:
        """Return the end of the file, which a text has not."""
        return b"" if self._begun else self._header()

    def _header(self) -> bytes:
        return ("\t".join([DATE, *(() if self._daily else (TIME,)), *VALUES]) + "\n").encode()

    def _lines(self, table: Any) -> bytes:
        times = pc.cast(table["time_ms"], pa.timestamp("ms"))
        cells = [pc.strftime(times, format="%Y.%m.%d")]
        if not self._daily:
            # The seconds of a moment in milliseconds would be written with a fraction.
            whole = pc.cast(times, pa.timestamp("s"))
            cells.append(pc.strftime(whole, format="%H:%M:%S"))
        cells += [pc.cast(table[name], pa.string()) for name in (*PRICES, "tick_volume", "volume")]
        cells.append(pc.cast(pa.array(self._points(table)), pa.string()))
        lines = pc.binary_join_element_wise(*cells, "\t")
        return "\n".join([*lines.to_pylist(), ""]).encode()

    def _points(self, table: Any) -> Column:
        if self._digits is None:
            self._digits = max(digits_of(_numbers(table[name])) for name in self._telling)
        return np.rint(_numbers(table["spread_min"]) * 10.0**self._digits).astype(np.int64)


def _numbers(column: Any) -> Column:
    values: Column = pc.fill_null(column, 0.0).to_numpy()
    return values


def digits_of(values: Column) -> int:
    """Return how many digits behind the point these numbers need, at most DIGITS_MAX."""
    for digits in range(DIGITS_MAX):
        if np.isclose(np.round(values, digits), values, rtol=NOISE, atol=0).all():
            return digits
    return DIGITS_MAX
