"""What the tick path costs, as ratios measured side by side in one run: end to end beside the engine alone.

Run with `make bench` or `python tests/benchmarks/ingest.py [--rows N]`. Data lies in memory where
/dev/shm is there, because a disk's fsync would drown what we want to see; the calls are made all the same.
"""

import argparse
import asyncio
import contextlib
import logging
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import psutil
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

sys.path.insert(0, str(Path(__file__).parents[2]))

from core.adapters.clickhouse import native
from core.infrastructure.central_hub import open_hub
from core.messages import wire
from core.messages.wire import Batch, FrameType, Hello, Resume
from core.model.ticks import SymbolRun, TickBlock
from core.settings import Settings
from tests.bridges import SOURCE, TOKEN, Bridge, build_bridge, make_rows
from tests.connectors import RECORDING, build_connector
from tests.engines import House, bring_forward, running_house, wait_for

BLOCK_ROWS = 100_000
LARGE_BLOCK_ROWS = 300_000
ROUNDS = 3
LATENCY_SECONDS = 4.0
FRAMES = 60_000


def block(first_seq: int, count: int, source: str) -> TickBlock:
    zeros = np.zeros(count, dtype=np.uint8)
    return TickBlock(
        source=source,
        epoch=1,
        first_seq=first_seq,
        rows=make_rows(count, first_seq),
        runs=(SymbolRun(symbol="EURUSD", count=count),),
        quarantine=zeros,
        backfill=zeros,
        utc_offset_s=np.full(count, 10_800, dtype=np.int32),
        captured_at_ms=np.full(count, 1_714_557_600_000, dtype=np.int64),
    )


async def engine_rate(settings: Settings, rows: int, source: str) -> float:
    """Rows a second of the engine alone: bodies encoded beforehand, one fsynced insert after the other."""
    async with open_hub(settings, {"clickhouse"}) as hub:
        client = hub["clickhouse"].client
        bodies = [
            tuple(native.encode(block(start + 1, LARGE_BLOCK_ROWS, source)))
            for start in range(0, rows, LARGE_BLOCK_ROWS)
        ]
        started = time.perf_counter()
        for body in bodies:
            await client.raw_insert(
                "ticks", insert_block=pieces(body), fmt="Native", settings={"async_insert": 0}
            )
        return rows / (time.perf_counter() - started)


async def pieces(body: tuple[bytes, ...]) -> AsyncIterator[bytes]:
    for piece in body:
        yield piece


async def engine_latency_ms(settings: Settings, block_rows: int, count: int) -> np.ndarray:
    """Latency of single fsynced inserts of `block_rows` rows, ms, shape (count,)."""
    async with open_hub(settings, {"tick_store"}) as hub:
        taken = []
        for number in range(count):
            piece = block(1 + number * block_rows, block_rows, f"lone{block_rows}")
            started = time.perf_counter()
            for insert in hub["tick_store"].prepare(piece):
                await hub["tick_store"].append(insert, 1)
            taken.append((time.perf_counter() - started) * 1_000)
    return np.array(taken)


class Sender(WSListener):
    """A connector's end reduced to its wire: sends, and notes when each ACK came."""

    def __init__(self) -> None:
        self.resumed: asyncio.Future[Resume] = asyncio.get_running_loop().create_future()
        self.acknowledged: list[tuple[int, float]] = [(0, 0.0)]
        self.moved = asyncio.Event()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        payload = frame.get_payload_as_bytes()
        kind = wire.frame_type(payload)
        if kind is FrameType.ACK:
            self.acknowledged.append((wire.decode_ack(payload), time.perf_counter()))
            self.moved.set()
        elif kind is FrameType.RESUME:
            self.resumed.set_result(wire.decode_json(payload, Resume))
        else:
            raise AssertionError(payload[:200])

    async def at_least(self, seq: int) -> None:
        while self.acknowledged[-1][0] < seq:
            self.moved.clear()
            await self.moved.wait()


async def dial(bridge: Bridge, install: str) -> Sender:
    _, sender = await ws_connect(Sender, bridge.url + wire.PATH)
    hello = Hello(versions=[1], source=SOURCE, install=install, token=TOKEN, first_seq=1, next_seq=2**40)
    sender.transport.send(WSMsgType.BINARY, wire.encode_json(FrameType.HELLO, hello))
    await sender.resumed
    return sender


async def wire_rate(bridge: Bridge, rows: int, install: str) -> float:
    """Durable rows a second from one sender that keeps the window full of large frames."""
    sender = await dial(bridge, install)
    window = (await sender.resumed).window_rows
    frames = [
        wire.encode_batch(
            Batch(
                first_seq=start + 1,
                rows=make_rows(BLOCK_ROWS, start + 1),
                runs=(SymbolRun(symbol="EURUSD", count=BLOCK_ROWS),),
            )
        )
        for start in range(0, rows, BLOCK_ROWS)
    ]
    started = time.perf_counter()
    for number, frame in enumerate(frames):
        await sender.at_least((number + 1) * BLOCK_ROWS - window)
        sender.transport.send(WSMsgType.BINARY, frame)
        await asyncio.sleep(0)
    await sender.at_least(rows)
    rate = rows / (time.perf_counter() - started)
    sender.transport.disconnect()
    return rate


async def frame_rate(bridge: Bridge) -> float:
    """Durable frames a second with one tick in each."""
    sender = await dial(bridge, "frames")
    window = (await sender.resumed).window_frames
    runs = (SymbolRun(symbol="EURUSD", count=1),)
    rows = make_rows(FRAMES)
    frames = [
        wire.encode_batch(Batch(first_seq=i + 1, rows=rows[i : i + 1], runs=runs)) for i in range(FRAMES)
    ]
    started = time.perf_counter()
    for number, frame in enumerate(frames):
        if number % 64 == 0:
            await sender.at_least(number + 64 - window)
            await asyncio.sleep(0)
        sender.transport.send(WSMsgType.BINARY, frame)
    await sender.at_least(FRAMES)
    rate = FRAMES / (time.perf_counter() - started)
    sender.transport.disconnect()
    return rate


async def ack_latency_ms(bridge: Bridge, per_second: int) -> np.ndarray:
    """Milliseconds from sending a tick to its ACK at a steady rate, 100 frames a second; shape (frames,)."""
    sender = await dial(bridge, f"rate{per_second}")
    count = per_second // 100
    runs = (SymbolRun(symbol="EURUSD", count=count),)
    sent: list[tuple[int, float]] = []
    began = time.perf_counter()
    for number in range(int(LATENCY_SECONDS * 100)):
        await asyncio.sleep(max(0.0, began + number / 100 - time.perf_counter()))
        batch = Batch(first_seq=number * count + 1, rows=make_rows(count, number * count), runs=runs)
        sender.transport.send(WSMsgType.BINARY, wire.encode_batch(batch))
        sent.append((batch.last_seq, time.perf_counter()))
    await sender.at_least(sent[-1][0])
    sender.transport.disconnect()
    seqs = np.array([seq for seq, _ in sender.acknowledged])
    times = np.array([at for _, at in sender.acknowledged])
    found = times[np.searchsorted(seqs, [seq for seq, _ in sent])]
    return (found - np.array([at for _, at in sent])) * 1_000


def write_tape(path: Path, rows: int) -> None:
    """A day of quotes in LEAN's format."""
    rng = np.random.default_rng(1)
    at_ms = np.sort(rng.integers(0, 86_400_000, rows))
    bid = np.round(1.39 + np.cumsum(rng.normal(0, 1e-6, rows)), 5)
    lines = (f"{ms},{price:.5f},{price + 1e-4:.5f}" for ms, price in zip(at_ms, bid, strict=True))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("20140508_usdjpy_tick_quote.csv", "\n".join(lines))


def connector_rate(bridge: Bridge, directory: Path, rows: int) -> tuple[float, dict[str, float]]:
    """Durable rows a second of a real connector from its terminal on, once it has begun; and memory, MB."""
    tape = directory / "oanda_usdjpy_20140508_quote.zip"
    write_tape(tape, rows)
    options = {"path": str(tape), "speed": "max"}
    live = build_connector(bridge.port, directory / "live", RECORDING, options)
    live.start()
    first_s = wait_for(lambda: live.status().get("acked_seq") and time.perf_counter(), "the first ACK")
    already = live.status()["acked_seq"]
    live.wait_drained(300)
    live_rate = (rows - already) / (time.perf_counter() - first_s)
    memory = {"connector": rss_mb(live.process.pid), "bridge": rss_mb(bridge.process.pid)}
    live.stop()
    return live_rate, memory


def rss_mb(pid: int) -> float:
    process = psutil.Process(pid)
    return sum(one.memory_info().rss for one in (process, *process.children(recursive=True))) / 1e6


@contextlib.contextmanager
def scene() -> Iterator[tuple[House, Bridge, Path]]:
    shm = Path("/dev/shm")
    root = Path(tempfile.mkdtemp(prefix="tickgate-bench-", dir=shm if shm.is_dir() else None))
    try:
        with running_house(root / "house") as house:
            asyncio.run(bring_forward(house.settings))
            bridge = build_bridge(house.settings, root)
            bridge.start()
            bridge.wait_ready()
            try:
                yield house, bridge, root
            finally:
                bridge.stop()
    finally:
        shutil.rmtree(root, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=3_000_000)
    rows = parser.parse_args().rows
    logging.disable(logging.WARNING)
    with scene() as (house, bridge, root):
        settings = house.settings
        print(
            f"rows {rows:,} a round, {ROUNDS} rounds in turn, medians; fsync on; engine: one client, bodies ready"
        )
        rounds = [one_round(settings, bridge, rows, number) for number in range(ROUNDS)]
        alone = np.median([engine for engine, _ in rounds])
        through = np.median([whole for _, whole in rounds])
        share = np.median([whole / engine for engine, whole in rounds])
        print(f"{'engine alone, 300 k rows an insert':44} {alone:12,.0f} rows/s   1.00")
        print(f"{'wire -> bridge -> engine':44} {through:12,.0f} rows/s   {share:.2f}")
        live, memory = connector_rate(bridge, root, rows)
        print(f"{'terminal -> connector -> bridge -> engine':44} {live:12,.0f} rows/s   {live / alone:.2f}")
        print(f"{'one tick a frame, durable':44} {asyncio.run(frame_rate(bridge)):12,.0f} frames/s")
        print("ms from sending to ACK                p50      p99    bare insert p50      p99    p99 / p99")
        for per_second in (1_000, 10_000, 100_000):
            taken = asyncio.run(ack_latency_ms(bridge, per_second))
            bare = asyncio.run(engine_latency_ms(settings, max(1, per_second // 50), 150))
            p50, p99, b50, b99 = (*np.percentile(taken, [50, 99]), *np.percentile(bare, [50, 99]))
            print(
                f"{per_second:12,} ticks/s {'':12} {p50:8.1f} {p99:8.1f} {b50:18.1f} {b99:8.1f} {p99 / b99:12.1f}"
            )
        for name, engine in house.engines.items():
            memory[name] = rss_mb(engine.process.pid)
        print("memory, MB: " + ", ".join(f"{name} {size:.0f}" for name, size in memory.items()))


def one_round(settings: Settings, bridge: Bridge, rows: int, number: int) -> tuple[float, float]:
    """Measure the engine alone and the whole path right after it."""
    alone = asyncio.run(engine_rate(settings, rows, f"bare{number}"))
    return alone, asyncio.run(wire_rate(bridge, rows, f"wire{number}"))


if __name__ == "__main__":
    main()
