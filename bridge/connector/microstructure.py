"""Synthetic FX ticks with random access: the ticks of a block are a pure function of (seed, symbol, block).

The middle price is a sum of slow waves and of noise that is pinned at block edges, so that blocks made in any order
fit together. Arrivals cluster: a block's intensity varies, and events bring echoes within milliseconds.
"""

import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from core.model.ticks import FLAG_ASK, FLAG_BID, TICK_DTYPE, Ticks

BLOCK_S: Final = 10
BLOCK_MS: Final = BLOCK_S * 1_000
WAVES: Final = ((86_400.0, 0.35), (14_400.0, 0.22), (2_700.0, 0.13), (600.0, 0.06), (97.0, 0.022))
"""Period in seconds and amplitude in percent of the price."""
ECHO_SHARE: Final = 0.45
"""Of all ticks, those that follow another one within milliseconds."""
SAME_MS_SHARE: Final = 0.30
IDENTICAL_SHARE: Final = 0.02
BURST_SHARE: Final = 0.06
"""Of all blocks, those in which much happens and spreads are wide."""
BURST_FACTOR: Final = 4.0
BURST_SPREAD_FACTOR: Final = 3
INTENSITY_SIGMA: Final = 0.6
ROWS_PER_BLOCK_MAX: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """spread_points: when calm; noise_points: per square root of a second; pace: its share of the rate."""

    name: str
    digits: int
    price: float
    spread_points: int
    noise_points: float
    pace: float


INSTRUMENTS: Final[dict[str, Instrument]] = {
    item.name: item
    for item in (
        Instrument(name="EURUSD", digits=5, price=1.0850, spread_points=6, noise_points=3.0, pace=1.1),
        Instrument(name="GBPUSD", digits=5, price=1.2710, spread_points=9, noise_points=4.0, pace=1.0),
        Instrument(name="USDJPY", digits=3, price=151.20, spread_points=8, noise_points=4.0, pace=1.1),
        Instrument(name="AUDUSD", digits=5, price=0.6580, spread_points=8, noise_points=2.5, pace=0.8),
        Instrument(name="USDCHF", digits=5, price=0.9010, spread_points=10, noise_points=2.5, pace=0.7),
        Instrument(name="XAUUSD", digits=2, price=2330.0, spread_points=18, noise_points=9.0, pace=1.3),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """rate: ticks a second and symbol, on average. busy_*: of every so many blocks one second holds extra rows."""

    seed: int
    rate: float
    busy_every_blocks: int = 0
    busy_rows: int = 0

    def block(self, instrument: Instrument, number: int) -> Ticks:
        """Return the ticks of seconds number * BLOCK_S to (number + 1) * BLOCK_S of the trade server's clock."""
        rng = self._random(instrument, number, 0)
        burst = rng.random() < BURST_SHARE
        mean = (
            self.rate
            * instrument.pace
            * BLOCK_S
            * float(rng.lognormal(-(INTENSITY_SIGMA**2) / 2, INTENSITY_SIGMA))
        )
        # Bursts are paid for by the calm, so that the average stays `rate`.
        mean *= BURST_FACTOR if burst else (1 - BURST_SHARE * BURST_FACTOR) / (1 - BURST_SHARE)
        count = min(int(rng.poisson(mean)), ROWS_PER_BLOCK_MAX)
        offsets = _arrivals(rng, count)
        if self.busy_every_blocks and number % self.busy_every_blocks == 0:
            second = int(rng.integers(BLOCK_S)) * 1_000
            offsets = np.sort(np.append(offsets, second + rng.integers(0, 1_000, self.busy_rows)))
        if not len(offsets):
            return np.empty(0, TICK_DTYPE)
        spread = instrument.spread_points * (BURST_SPREAD_FACTOR if burst else 1)
        return self._rows(instrument, number, offsets, spread, rng)

    def _rows(
        self,
        instrument: Instrument,
        number: int,
        offsets: npt.NDArray[np.int64],
        spread: int,
        rng: np.random.Generator,
    ) -> Ticks:
        count = len(offsets)
        middle = self._middle(instrument, number, offsets, rng)
        width = np.maximum(1, spread + rng.geometric(0.5, count) - 2)
        bid = np.rint(middle - width / 2).astype(np.int64)
        ask = bid + width
        for side in (bid, ask):
            # Often only one side is quoted anew.
            held = np.flatnonzero(rng.random(count) < 0.25)
            side[held] = side[np.maximum(held - 1, 0)]
        identical = np.flatnonzero(rng.random(count) < IDENTICAL_SHARE)
        identical = identical[identical > 0]
        for column in (bid, ask, offsets):
            column[identical] = column[identical - 1]
        ask = np.maximum(ask, bid + 1)
        rows = np.zeros(count, TICK_DTYPE)
        rows["time_msc"] = number * BLOCK_MS + np.sort(offsets)
        rows["time"] = rows["time_msc"] // 1_000
        scale = 10.0**instrument.digits
        # Whole points divided by a power of ten: the same float that parsing the decimal text gives.
        rows["bid"] = bid / scale
        rows["ask"] = ask / scale
        rows["flags"] = _flags(bid, ask)
        return rows

    def _middle(
        self,
        instrument: Instrument,
        number: int,
        offsets: npt.NDArray[np.int64],
        rng: np.random.Generator,
    ) -> npt.NDArray[np.float64]:
        """Return the middle price in points."""
        at_s = number * BLOCK_S + offsets / 1_000
        waves = sum(
            (amplitude / 100 * np.sin(2 * np.pi * (at_s / period_s + self._phase(instrument, wave))))
            for wave, (period_s, amplitude) in enumerate(WAVES)
        )
        points = instrument.price * 10.0**instrument.digits * (1.0 + waves)
        gaps_s = np.diff(offsets, prepend=0) / 1_000
        walk = np.cumsum(rng.standard_normal(len(offsets)) * np.sqrt(gaps_s)) * instrument.noise_points
        # A bridge: the walk is tilted so that it starts and ends at the pinned levels of the block's edges.
        part = offsets / BLOCK_MS
        tail_s = max(BLOCK_S - float(offsets[-1]) / 1_000, 0.0)
        end = float(walk[-1]) + float(rng.standard_normal()) * np.sqrt(tail_s) * instrument.noise_points
        edges = self._edge(instrument, number), self._edge(instrument, number + 1)
        noise = walk - part * end + edges[0] * (1 - part) + edges[1] * part
        return np.asarray(points + noise, dtype=np.float64)

    def _edge(self, instrument: Instrument, number: int) -> float:
        scale = instrument.noise_points * np.sqrt(BLOCK_S)
        return float(self._random(instrument, number, 1).standard_normal() * scale)

    def _phase(self, instrument: Instrument, wave: int) -> float:
        return float(self._random(instrument, wave, 2).random())

    def _random(self, instrument: Instrument, number: int, stream: int) -> np.random.Generator:
        key = (self.seed & 0xFFFF_FFFF) << 32 | zlib.crc32(instrument.name.encode())
        return np.random.Generator(np.random.Philox(key=key, counter=[0, stream, number, 0]))


def _arrivals(rng: np.random.Generator, count: int) -> npt.NDArray[np.int64]:
    """Return `count` sorted milliseconds within a block: events, and echoes close behind some of them."""
    events = max(1, count - int(count * ECHO_SHARE))
    times = rng.integers(0, BLOCK_MS, min(events, count))
    if count > events:
        lag = rng.geometric(0.08, count - events) - 1
        lag[rng.random(count - events) < SAME_MS_SHARE] = 0
        echoes = times[rng.integers(0, events, count - events)] + lag
        times = np.append(times, np.minimum(echoes, BLOCK_MS - 1))
    return np.sort(times).astype(np.int64)


def _flags(bid: npt.NDArray[np.int64], ask: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
    """Which sides changed; a tick that changes nothing says both."""
    flags = np.full(len(bid), FLAG_BID | FLAG_ASK, np.uint32)
    bid_changed, ask_changed = bid[1:] != bid[:-1], ask[1:] != ask[:-1]
    flags[1:][bid_changed & ~ask_changed] = FLAG_BID
    flags[1:][~bid_changed & ask_changed] = FLAG_ASK
    # A row that repeats its predecessor repeats all of it.
    same = np.flatnonzero(~bid_changed & ~ask_changed) + 1
    for at in same.tolist():
        flags[at] = flags[at - 1]
    return flags
