"""The SELECT of bars: open, high, low, close, volumes and spread of each interval, one source at a time.

Which tick opens or closes a bar is decided by (time_msc, epoch, seq) packed into one 128-bit number: exact among
ticks of one millisecond and across epochs, and several times cheaper than comparing tuples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from core.adapters.clickhouse.cursors import BarCursor
from core.adapters.clickhouse.reading import UTC_OFFSET_MS_MAX, UTC_TIME, Condition, clamp, of_symbol
from core.messages.jobs import INTERVAL_MS, BarExportQuery, BarPrice, BarQuery, TimeBase

_PRICES: Final[dict[BarPrice, str]] = {
    BarPrice.AUTO: "if(bid > 0, bid, last)",
    BarPrice.BID: "bid",
    BarPrice.ASK: "ask",
    BarPrice.MID: "if(bid > 0 and ask > 0, (bid + ask) / 2, 0)",
    BarPrice.LAST: "last",
}
assert set(_PRICES) == set(BarPrice), "every price has its expression"

_ORDER: Final = (
    "bitShiftLeft(toUInt128(moment - time_ms), 96) + bitShiftLeft(toUInt128(epoch), 64) + toUInt128(seq)"
)
_COLUMNS: Final = (
    "any(symbol) as symbol, source, time_ms, argMin(price, rank) as open, max(price) as high,"
    " min(price) as low, argMax(price, rank) as close, count() as tick_volume, sum(volume_real) as volume,"
    # Rounded to ten places: a difference of doubles carries noise far behind any price's digits.
    " round(minOrNullIf(ask - bid, bid > 0 and ask > 0), 10) as spread_min,"
    " round(avgOrNullIf(ask - bid, bid > 0 and ask > 0), 10) as spread_avg"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Bars of `query` after `cursor` whose ticks lie in [start_ms, end_ms), which are whole bars."""

    query: BarQuery | BarExportQuery
    sources: Sequence[str]
    start_ms: int
    end_ms: int
    cursor: BarCursor | None = None


def moment_of(query: BarQuery | BarExportQuery) -> str:
    """Return the moment of a tick on the clock the query names."""
    return f"assumeNotNull({UTC_TIME})" if query.clock is TimeBase.UTC else "time_msc"


def select_bars(stretch: Stretch) -> tuple[str, Condition]:
    """Return the SELECT of these bars in the order of (time_ms, source), and its condition."""
    query, cursor = stretch.query, stretch.cursor
    condition = of_symbol(query, stretch.sources)
    moment = moment_of(query)
    condition.add(
        f"{moment} >= {{from_ms:Int64}} and {moment} < {{until_ms:Int64}}",
        from_ms=stretch.start_ms,
        until_ms=stretch.end_ms,
        step_ms=INTERVAL_MS[query.interval],
    )
    if query.clock is TimeBase.UTC:
        # What the primary key knows, so that a stretch is not looked for in the whole history.
        condition.add(
            "time_msc >= {from_server:Int64} and time_msc < {until_server:Int64}",
            from_server=clamp(stretch.start_ms - UTC_OFFSET_MS_MAX),
            until_server=clamp(stretch.end_ms + UTC_OFFSET_MS_MAX),
        )
    after = ""
    if cursor is not None:
        after = " where (time_ms, source) > ({c_time:Int64}, {c_source:String})"
        condition.parameters.update(c_time=clamp(cursor.time_ms), c_source=cursor.source)
    ticks = (
        f"select symbol, source, {moment} as moment,"
        " moment - positiveModulo(moment, {step_ms:Int64}) as time_ms,"
        f" {_PRICES[query.price]} as price, {_ORDER} as rank, bid, ask, volume_real"
        f" from ticks where {condition} and price > 0"
    )
    bars = f"select {_COLUMNS} from ({ticks}) group by time_ms, source"
    return f"select * from ({bars}){after} order by time_ms, source", condition
