"""Ticks as MetaTrader 5 exports them, made of pages that come one after the other.

Tab separated; a price that has not changed is left empty. A cell is written where its value differs from the line
before (before the first it is 0) or where the tick's flags say that it changed. So reading each empty cell as the value
above it gives back every number exactly, and writing those again gives the same bytes. Numbers are the shortest text
that reads as the same float64. This module loads pyarrow: only who writes such files imports it, through the Import
Manager.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

HEADER: Final = b"<DATE>\t<TIME>\t<BID>\t<ASK>\t<LAST>\t<VOLUME>\t<FLAGS>\n"
FLAGS: Final = {"bid": 2, "ask": 4, "last": 8, "volume": 16}
"""Bits of a tick's flags that say what changed. Source: MQL5, MqlTick, TICK_FLAG_BID and so on."""

Column = npt.NDArray[Any]


class TickCsvFile:
    """add: takes a page, an Arrow stream of ticks, and returns its lines, the header before the first."""

    def __init__(self) -> None:
        self._before = dict.fromkeys(FLAGS, 0.0)
        self._begun = False

    def add(self, page: bytes) -> bytes:
        with pa.ipc.open_stream(page) as reader:
            table = reader.read_all()
        head = b"" if self._begun else HEADER
        self._begun = True
        return head + (self._lines(table) if table.num_rows else b"")

    def finish(self) -> bytes:
        """Return the end of the file, which a text has not."""
        return b"" if self._begun else HEADER

    def _lines(self, table: Any) -> bytes:
        times = pc.cast(table["time_msc"], pa.timestamp("ms"))
        flags = table["flags"].to_numpy()
        cells = [pc.strftime(times, format="%Y.%m.%d"), pc.strftime(times, format="%H:%M:%S")]
        cells += [self._cells(name, values, flags) for name, values in _numbers(table).items()]
        cells.append(pc.cast(table["flags"], pa.string()))
        lines = pc.binary_join_element_wise(*cells, "\t")
        return "\n".join([*lines.to_pylist(), ""]).encode()

    def _cells(self, name: str, values: Column, flags: Column) -> Any:
        above = np.concatenate(([self._before[name]], values[:-1]))
        self._before[name] = float(values[-1])
        written = (values != above) | (flags & FLAGS[name] != 0)
        return pc.if_else(pa.array(written), pc.cast(pa.array(values), pa.string()), "")


def _numbers(table: Any) -> dict[str, Column]:
    real = table["volume_real"].to_numpy()
    # Some terminals fill only the whole number.
    volume = np.where(real != 0, real, table["volume"].to_numpy().astype(np.float64))
    return {**{name: table[name].to_numpy() for name in ("bid", "ask", "last")}, "volume": volume}
