"""Live quotes behind the store: the newest of each symbol, conflated, to Redis and to subscribers.

A quote is offered only once it is durable, so nobody acts on a tick that could vanish. Everything here is lossy by
design and never slows the path that stores ticks.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np
import structlog

from core.errors.exceptions import Unavailable
from core.model.ticks import UTC_OFFSET_UNKNOWN, Quarantine, TickBlock
from core.ports.ticks import LatestQuotes

log = structlog.get_logger(__name__)

REDIS_INTERVAL_S: Final = 0.02
REDIS_PAUSE_S: Final = 1.0

QuoteKey = tuple[str, str]
"""(source, symbol)"""


class Quote(msgspec.Struct, frozen=True, kw_only=True):
    """The newest tick of a symbol; `utc_ms` is None while the server's offset is unknown."""

    symbol: str
    source: str
    time_msc: int
    utc_ms: int | None
    bid: float
    ask: float
    last: float
    volume: int
    flags: int
    epoch: int
    seq: int


@dataclass(slots=True)
class Newest:
    """The newest quote of one key. ticks: how many ticks this process has seen of it, to count what is skipped."""

    quote: Quote
    ticks: int


@dataclass(slots=True)
class Fanout:
    """What every subscriber reads from. on_change is called once for each batch that changed something."""

    newest: dict[str, dict[QuoteKey, Newest]] = field(default_factory=dict)  # by tenant
    _dirty: dict[QuoteKey, Quote] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _encode: Callable[[Quote], bytes] = field(default_factory=lambda: msgspec.json.Encoder().encode)

    def publish(self, tenant: str, block: TickBlock) -> None:
        """Offer the newest good row of each symbol of a durable block."""
        of_tenant = self.newest.setdefault(tenant, {})
        start = 0
        for run in block.runs:
            stop = start + run.count
            good = np.flatnonzero(block.quarantine[start:stop] == Quarantine.OK.value)
            if len(good):
                self._offer(of_tenant, block, run.symbol, start + int(good[-1]), len(good))
            start = stop

    def _offer(
        self, of_tenant: dict[QuoteKey, Newest], block: TickBlock, symbol: str, row: int, ticks: int
    ) -> None:
        key = (block.source, symbol)
        known = of_tenant.get(key)
        quote = _quote(block, symbol, row)
        if known is None:
            of_tenant[key] = Newest(quote, ticks)
        else:
            # In the terminal's own order: a time stamp may be wrong, and must not shut out what follows.
            known.ticks += ticks
            known.quote = quote
        self._dirty[key] = quote
        self._changed.set()

    async def keep_latest(self, latest: LatestQuotes) -> None:
        """Copy changed quotes to Redis until cancelled; while Redis is away only the newest is remembered."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            dirty, self._dirty = self._dirty, {}
            by_source: dict[str, dict[str, bytes]] = {}
            for (source, symbol), quote in dirty.items():
                by_source.setdefault(source, {})[symbol] = self._encode(quote)
            try:
                for source, quotes in by_source.items():
                    await latest.put(source, quotes)
                await asyncio.sleep(REDIS_INTERVAL_S)
            except Unavailable as e:
                log.warning("quotes.not_kept", symbols=len(dirty), error=str(e))
                self._dirty = {**dirty, **self._dirty}
                self._changed.set()
                await asyncio.sleep(REDIS_PAUSE_S)


def _quote(block: TickBlock, symbol: str, row: int) -> Quote:
    tick = block.rows[row]
    time_msc = int(tick["time_msc"])
    offset_s = int(block.utc_offset_s[row])
    return Quote(
        symbol=symbol,
        source=block.source,
        time_msc=time_msc,
        utc_ms=None if offset_s == UTC_OFFSET_UNKNOWN else time_msc - offset_s * 1_000,
        bid=float(tick["bid"]),
        ask=float(tick["ask"]),
        last=float(tick["last"]),
        volume=int(tick["volume"]),
        flags=int(tick["flags"]),
        epoch=block.epoch,
        seq=block.first_seq + row,
    )
