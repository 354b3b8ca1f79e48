"""The whole way in and back, on all engines: `python -m tests.benchmarks.front_door`.

Latencies at 1, 16 and 64 connections, with one and two gateway processes before one and two workers, of a job that is
enqueued and answered 202, a question a worker answers from Valkey, and one it answers from ClickHouse; then what each
process weighs, and how long gateway and worker take from nothing to ready.
"""

import argparse
import atexit
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import redis

from core.adapters.redis.job_queue_format import queue_key
from tests.benchmarks.rig.load import UNLIMITED, Burst, Request, burst, describe
from tests.benchmarks.rig.processes import memory_bytes
from tests.engines import House, free_port, running_house, wait_for
from tests.gateways import DAY_MS, FrontDoor, Process, build, running, tick

ROUNDS = 3
BURST_S = 1.0
CONNECTIONS = (1, 16, 64)
FLEETS = ((1, 1), (2, 1), (2, 2))
TICKS = 2_000
PAGE = 10
SYMBOL = "EURUSD"
SOURCES = ("demo", "demo2")


def requests_of(port: int, token: str) -> dict[str, Request]:
    bearer = {"Authorization": f"Bearer {token}"}
    ticks = f"/v1/ticks?symbol={SYMBOL}&limit={PAGE}"
    quotes = f"/v1/quotes?symbols={SYMBOL}"
    return {
        "quotes, from Valkey": Request(port, "GET", quotes, bearer),
        f"{PAGE} ticks, from ClickHouse": Request(port, "GET", ticks, bearer),
        "quotes, enqueued, 202": Request(port, "GET", quotes, {**bearer, "Prefer": "wait=0"}),
    }


def second_worker(door: FrontDoor) -> Process:
    port = free_port()
    environment = {**door.worker.environment, "TICKGATE_WORKER_HEALTH_PORT": str(port)}
    worker = Process(["workers", "database"], environment, door.root / "worker2.log")
    worker.start()
    wait_for(lambda: worker.check() or ready(port), "the second worker being ready")
    return worker


def ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


@contextmanager
def fleet(root: Path, house: House, gateways: int, workers: int) -> Iterator[tuple[FrontDoor, list[Process]]]:
    """Run that many, the gateways as processes of one server, over a small history."""
    door = build(root, house, processes=gateways)
    for process in (door.gateway, door.worker):
        process.environment |= UNLIMITED
    rows = [tick(seq, DAY_MS + seq * 100, 1.08421, 1.08423) for seq in range(1, TICKS + 1)]
    with running(door, rows):
        quote(door)
        more = [second_worker(door) for _ in range(workers - 1)]
        try:
            yield door, [door.worker, *more]
        finally:
            for worker in more:
                worker.stop()


def measure(door: FrontDoor, rounds: int, label: str) -> None:
    for name, request in requests_of(door.settings.gateway.port, door.token()).items():
        burst(request, max(CONNECTIONS), BURST_S)
        wait_for(lambda: worked_off(door), "the queue being empty")
        for connections in CONNECTIONS:
            done = []
            for _ in range(rounds):
                done.append(burst(request, connections, BURST_S))
                wait_for(lambda: worked_off(door), "the queue being empty")
            print(f"{label:26}{name:30}{connections:6}{line(done)}", flush=True)


def valkey(door: FrontDoor) -> redis.Redis:
    of = door.settings.redis
    return redis.Redis(port=of.port, db=of.database, password=of.password.reveal())


def quote(door: FrontDoor) -> None:
    """Let each of the tenant's sources have a newest quote, as a bridge would have left it."""
    with valkey(door) as connection:
        for source in SOURCES:
            body = {
                "symbol": SYMBOL,
                "source": source,
                "time_msc": DAY_MS,
                "bid": "1.08421",
                "ask": "1.08423",
            }
            connection.hset(f"tickgate:quotes:{{{source}}}", SYMBOL, json.dumps(body))


def worked_off(door: FrontDoor) -> bool:
    with valkey(door) as connection:
        return connection.zcard(queue_key("database")) == 0


def line(done: list[Burst]) -> str:
    p50, p99, rate = (
        statistics.median(getattr(one, name) for one in done) for name in ("p50_ms", "p99_ms", "rate")
    )
    return f"{p50:10.2f}{p99:10.2f}{rate:9.0f}{sum(one.bad for one in done):9}"


def weigh(door: FrontDoor, workers: list[Process], gateways: int) -> None:
    gateway = memory_bytes(door.gateway.pid) / 1e6
    each = ", ".join(f"{memory_bytes(worker.pid) / 1e6:.0f}" for worker in workers)
    print(f"memory after that: gateway {gateway:.0f} MB (its server and {gateways}), workers {each} MB")


def cold_start(door: FrontDoor) -> None:
    """Stop both and start them anew over the engines that are still warm."""
    for name, process, port in (
        ("worker", door.worker, door.settings.worker.health_port),
        ("gateway", door.gateway, door.settings.gateway.port),
    ):
        spans_s = []
        for _ in range(ROUNDS):
            process.stop()
            started_s = time.perf_counter()
            process.start()
            wait_for(lambda process=process, port=port: process.check() or ready(port), name)
            spans_s.append(time.perf_counter() - started_s)
        print(f"cold start of a {name} to ready: {statistics.median(spans_s):.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    root = Path(tempfile.mkdtemp(prefix="tickgate-bench-"))
    root.chmod(0o711)
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    with running_house(root / "house") as house:
        print(f"{'':26}{'':30}{'conns':>6}{'p50 ms':>10}{'p99 ms':>10}{'req/s':>9}{'refused':>9}")
        for gateways, workers in FLEETS:
            label = f"{gateways} gateway{'s' * (gateways > 1)}, {workers} worker{'s' * (workers > 1)}"
            with fleet(root / f"door{gateways}{workers}", house, gateways, workers) as (door, processes):
                measure(door, rounds, label)
                weigh(door, processes, gateways)
                if (gateways, workers) == FLEETS[0]:
                    cold_start(door)
    print(f"bursts of {BURST_S:g} s by {describe()}; medians of {rounds};")
    print("refused: a tenant may leave no more than 1,000 jobs under way, so a lagging worker has it refused")


if __name__ == "__main__":
    main()
