"""Five million ticks through gateway and worker in every format: `python -m tests.benchmarks.export`."""

import asyncio
import itertools
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests import gateways
from tests.engines import House, running_house
from tests.exports import Peaks, begun, generate
from tests.gateways import DAY_MS, FrontDoor, tick

MANY = 5_000_000
SOURCES = ("demo", "demo2")
PAGE = "/v1/ticks?symbol=MANY&limit=50000"
QUICK = "/v1/ticks?symbol=MANY&limit=10"
CROWDS = (1, 8, 32)
QUICK_ROUNDS = 200


def peaks_of(door: FrontDoor, house: House) -> Peaks:
    engines = {name: house.engines[name].process for name in ("valkey", "clickhouse")}
    pids = {name: process.pid for name, process in engines.items() if process is not None}
    return Peaks(gateway=door.gateway.pid, worker=door.worker.pid, **pids)


def shown(peaks: Peaks) -> str:
    return "  ".join(f"{name} {size / 1e6:.0f}" for name, size in peaks.bytes.items())


def export(door: FrontDoor, house: House, name: str, query: str) -> None:
    with door.signed_in() as http, peaks_of(door, house) as peaks:
        started_s = time.perf_counter()
        with begun(http, f"/v1/ticks/export?{query}") as (first_s, parts):
            size = sum(map(len, parts))
        took_s = time.perf_counter() - started_s
    print(
        f"{name:22} first byte {first_s * 1_000:6.0f} ms  {MANY / took_s:9.0f} ticks/s"
        f"  {size / took_s / 1e6:6.1f} MB/s  {size / 1e6:6.0f} MB  peaks in MB: {shown(peaks)}",
        flush=True,
    )


def pages(door: FrontDoor, house: House, crowd: int, form: str) -> None:
    """Ask for the largest pages there are, many at once."""

    def ask(http: httpx.Client) -> int:
        return len(http.get(f"{PAGE}&format={form}", headers={"Prefer": "wait=30"}).content)

    with (
        door.signed_in() as http,
        peaks_of(door, house) as peaks,
        ThreadPoolExecutor(crowd) as threads,
    ):
        size = sum(threads.map(ask, itertools.repeat(http, crowd)))
    print(
        f"pages of 50,000, {crowd:2} {form:8} {size / 1e6:6.0f} MB  peaks in MB: {shown(peaks)}", flush=True
    )


def quick_ms(http: httpx.Client) -> tuple[float, float]:
    took_ms = []
    for _ in range(QUICK_ROUNDS):
        started_s = time.perf_counter()
        assert http.get(QUICK).status_code == 200
        took_ms.append((time.perf_counter() - started_s) * 1_000)
    took_ms.sort()
    return took_ms[len(took_ms) // 2], took_ms[len(took_ms) * 99 // 100]


def beside(door: FrontDoor) -> None:
    """Ask small questions alone and beside an export."""
    done = threading.Event()

    def go_on() -> None:
        with door.signed_in() as http:
            while not done.is_set():
                with begun(http, "/v1/ticks/export?symbol=MANY&format=csv") as (_, parts):
                    for _ in parts:
                        if done.is_set():
                            break

    with door.signed_in() as http:
        alone = quick_ms(http)
        exporting = threading.Thread(target=go_on)
        exporting.start()
        busy = quick_ms(http)
        done.set()
        exporting.join()
    print(f"10 ticks               alone p50 {alone[0]:.1f} p99 {alone[1]:.1f} ms", flush=True)
    print(f"10 ticks beside export       p50 {busy[0]:.1f} p99 {busy[1]:.1f} ms", flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, running_house(Path(directory) / "house") as house:
        Path(directory).chmod(0o711)
        door = gateways.build(Path(directory) / "door", house)
        with gateways.running(door, [tick(1, DAY_MS, 1.1, 1.2)]):
            asyncio.run(generate(door.settings, "MANY", MANY))
            for number, source in enumerate(SOURCES):
                columns = {"source": f"'{source}'", "time_msc": f"{DAY_MS} + number * 40 + {number}"}
                asyncio.run(generate(door.settings, "BOTH", MANY // 2, **columns))
            for form in ("csv", "json", "arrow", "parquet"):
                export(door, house, form, f"symbol=MANY&format={form}")
            export(door, house, "parquet, two sources", "symbol=BOTH&format=parquet")
            beside(door)
            for form in ("json", "parquet"):
                for crowd in CROWDS:
                    pages(door, house, crowd, form)


if __name__ == "__main__":
    main()
