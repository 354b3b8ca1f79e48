"""Which rows are ticks of a market, and which are kept apart with a reason: vectorised, never a row at a time."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from core.model.ticks import Quarantine, Ticks

# A tick older than electronic FX, or more than two days ahead of us, has a broken clock. Two days leave room for
# any trade server's offset (at most 14 h) and a badly set connector.
OLDEST_MSC: Final = 315_532_800_000  # 1980-01-01
AHEAD_MS_MAX: Final = 2 * 86_400_000
_PRICES: Final = ("bid", "ask", "last", "volume_real")


def quarantine_reasons(rows: Ticks, now_ms: int) -> npt.NDArray[np.uint8]:
    """Return one `Quarantine` value a row, shape (n,), uint8; the first reason that holds, in the order of the enum.

    A price of 0 means "none" (futures carry bid = ask = 0), so only rows with both sides can be crossed.
    Equal bid and ask are a locked market, which is legal.
    """
    reasons = np.zeros(len(rows), dtype=np.uint8)
    # Later assignments win, so the reasons are written from the last to the first.
    bid, ask, last, time_msc = rows["bid"], rows["ask"], rows["last"], rows["time_msc"]
    _mark(reasons, (bid == 0) & (ask == 0) & (last == 0), Quarantine.NO_PRICE)
    _mark(reasons, rows["time"] != time_msc // 1_000, Quarantine.TIME_MISMATCH)
    _mark(reasons, (time_msc < OLDEST_MSC) | (time_msc > now_ms + AHEAD_MS_MAX), Quarantine.ABSURD_TIME)
    _mark(reasons, (bid > ask) & (ask > 0), Quarantine.CROSSED)
    _mark(reasons, _any(rows, lambda column: column < 0), Quarantine.NEGATIVE)
    _mark(reasons, _any(rows, lambda column: ~np.isfinite(column)), Quarantine.NOT_FINITE)
    return reasons


def _mark(reasons: npt.NDArray[np.uint8], where: npt.NDArray[np.bool_], reason: Quarantine) -> None:
    reasons[where] = reason.value


def _any(rows: Ticks, test: Any) -> npt.NDArray[np.bool_]:
    found = np.zeros(len(rows), dtype=np.bool_)
    for price in _PRICES:
        found |= test(rows[price])
    return found
