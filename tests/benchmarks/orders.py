"""How long an order takes to its 202, to its venue and to its fill: `python -m tests.benchmarks.orders`.

Beside it, turn about in the same run, the floor: the statements our adapters send for one submission, in one bare
transaction (`rig/order_floor.py`). Then what one trading worker does with a backlog, and the risk checks alone.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
import msgspec

from core.settings import Settings
from core.trading.risk import assess
from tests import gateways
from tests.benchmarks.rig.load import UNLIMITED
from tests.benchmarks.rig.order_floor import TENANT, played, record
from tests.benchmarks.rig.order_links import ACCOUNTS, moments, submitted
from tests.benchmarks.rig.processes import cpu_s
from tests.engines import bring_forward, free_port, running_house, wait_for
from tests.gateways import FrontDoor, Process
from tests.trading_floors import account, keep_records, put_quote

ROUNDS: Final = 3
BURST_S: Final = 2.0
FLOOR_S: Final = 0.8
"""Shorter than the second after which the worker would look for what the floor has left to be sent."""
BACKLOG: Final = 400
QUOTE_S: Final = 1.0
ASSESSED: Final = 20_000
SYNC_MS: Final = 5_000
LIMITS: Final = {
    "submits_per_minute_max": 1_000_000,
    "duplicate_window_ms": 0,
    "position_max": "100000",
    "notional_max": "1000000000",
    "account_notional_max": "1000000000",
    "margin_share_max": "1",
}


@dataclass(frozen=True, kw_only=True)
class Load:
    """pause_s: between two orders of a connection; the floor makes none."""

    name: str
    connections: int
    pause_s: float = 0.0


LOADS: Final = (
    Load(name="1 connection, an order at a time", connections=1, pause_s=0.05),
    Load(name="1 connection, back to back", connections=1),
    Load(name="16 connections, back to back", connections=16),
)


@dataclass
class Times:
    """In ms. answered: request to 202; sent, filled: request to the moment the ledger says so."""

    answered: list[float] = field(default_factory=list)
    sent: list[float] = field(default_factory=list)
    filled: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)


@contextmanager
def open_floor(root: Path) -> Iterator[tuple[FrontDoor, Process]]:
    """Run gateway, database worker and trading worker as in production, with accounts of two tenants."""
    with running_house(root / "house") as house:
        asyncio.run(bring_forward(house.settings))
        door = gateways.build(root / "door", house)
        environment = {**door.gateway.environment, **UNLIMITED, "TICKGATE_LIMITS_WRITE": "1000000000/minute"}
        environment["TICKGATE_TRADING_SYNC_INTERVAL_MS"] = str(SYNC_MS)
        door.gateway.environment, door.worker.environment = environment, environment
        health = {"TICKGATE_WORKER_HEALTH_PORT": str(free_port())}
        trading = Process(["workers", "trading"], {**environment, **health}, root / "trading.log")
        with gateways.running(door, []):
            for tenant, source in (("demo", "demo"), (TENANT, "rival")):
                accounts = {
                    name: account(source=source, opening_balance="1000000000", login=number + 1)
                    for number, name in enumerate(ACCOUNTS)
                }
                asyncio.run(keep_records(door.settings, tenant, accounts))
            for client in ("demo", TENANT):
                with door.signed_in(client) as http:
                    answer = http.put("/v1/risk-limits/tenant/-", json=LIMITS, headers={"If-Match": "*"})
                    assert answer.status_code < 300, answer.text
            start(door, trading)
            try:
                yield door, trading
            finally:
                trading.stop()


def start(door: FrontDoor, trading: Process) -> None:
    asyncio.run(quote(door.settings))
    trading.start()
    port = trading.environment["TICKGATE_WORKER_HEALTH_PORT"]

    def ready() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    wait_for(lambda: trading.check() or ready(), "the trading worker being ready")


async def quote(settings: Settings) -> None:
    for source in ("demo", "rival"):
        await put_quote(settings, source=source)


async def quoting(settings: Settings) -> None:
    while True:
        await quote(settings)
        await asyncio.sleep(QUOTE_S)


async def burst(door: FrontDoor, token: str, load: Load, times: Times, burst_s: float) -> None:
    done = await submitted(
        door, token, load.connections, until_s=burst_s, most=1_000_000, pause_s=load.pause_s
    )
    came = await moments(door.settings, [order for order, _, _ in done])
    for order, at_ms, took_ms in done:
        times.answered.append(took_ms)
        times.sent.append(came[order]["SENDING"] - at_ms)
        times.filled.append(came[order]["FILLED"] - at_ms)


async def latencies(door: FrontDoor, token: str, rounds: int, burst_s: float) -> dict[str, Times]:
    found = {load.name: Times() for load in LOADS}
    quotes = asyncio.create_task(quoting(door.settings))
    try:
        recorded = await record(msgspec.structs.replace(door.settings, postgres=one_link(door)), ACCOUNTS[0])
        print(
            f"one submission: {recorded.sent} messages to PostgreSQL and back; the floor's transaction "
            f"{len(recorded.statements) + 2}",
            flush=True,
        )
        for _ in range(rounds):
            for load in LOADS:
                times = found[load.name]
                times.bare += await played(door.settings, recorded, ACCOUNTS, load.connections, FLOOR_S)
                await burst(door, token, load, times, burst_s)
    finally:
        quotes.cancel()
    return found


def one_link(door: FrontDoor) -> object:
    return msgspec.structs.replace(door.settings.postgres, connections_max=1)


def show(found: dict[str, Times]) -> None:
    print("\n| ms, p50 / p99 | bare transaction | 202 | of bare | SENDING | FILLED | of bare | orders/s |")
    print("|---|---|---|---|---|---|---|---|")
    for load, times in zip(LOADS, found.values(), strict=True):
        bare = statistics.median(times.bare)
        cells = [
            two(times.bare),
            two(times.answered),
            f"{statistics.median(times.answered) / bare:.2f} x",
            two(times.sent),
            two(times.filled),
            f"{statistics.median(times.filled) / bare:.2f} x",
            "" if load.pause_s else f"{load.connections * 1_000 / statistics.mean(times.answered):.0f}",
        ]
        print(f"| {load.name} | {' | '.join(cells)} |", flush=True)


def two(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} / {statistics.quantiles(values, n=100)[98]:.1f}"


def backlog(door: FrontDoor, trading: Process, token: str) -> None:
    """Let orders wait while nobody sends them, then let one worker."""
    trading.stop()
    asyncio.run(quote(door.settings))
    alone = asyncio.run(submitted(door, token, 1, until_s=10, most=BACKLOG // 4))
    used_s = cpu_s(door.gateway.pid)
    done = asyncio.run(submitted(door, token, 16, until_s=60, most=BACKLOG))
    gateway_s = cpu_s(door.gateway.pid) - used_s
    print("\nwhile no worker sends, 202 in ms, p50 / p99")
    print(f"  {two([ms for _, _, ms in alone])} at 1 connection, {two([ms for _, _, ms in done])} at 16")
    print(f"  CPU of the gateway for an order: {gateway_s * 1_000 / len(done):.1f} ms")
    done += alone
    start(door, trading)
    came = asyncio.run(moments(door.settings, [order for order, _, _ in done])).values()
    took_s = (max(one["FILLED"] for one in came) - min(one["SENDING"] for one in came)) / 1_000
    print(f"one trading worker, a backlog of {len(done)}")
    print(f"  {len(done) / took_s:.0f} orders/s sent and filled")
    print(
        f"  CPU of the worker for an order, its start included: {cpu_s(trading.pid) * 1_000 / len(done):.1f} ms"
    )


def risk() -> None:
    # Imported here: it brings pytest along.
    from tests.unit.trading.test_risk import FACTS, LIMITS, ORDER

    assert not assess(ORDER, FACTS, LIMITS)
    best = 0.0
    for _ in range(3):
        began = time.process_time()
        for _ in range(ASSESSED):
            assess(ORDER, FACTS, LIMITS)
        best = max(best, ASSESSED / (time.process_time() - began))
    print(f"risk checks on one core: {best:,.0f} orders/s, all fourteen")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--burst", type=float, default=BURST_S)
    asked, _ = parser.parse_known_args()
    risk()
    with tempfile.TemporaryDirectory(prefix="tickgate-bench-") as root:
        Path(root).chmod(0o711)
        with open_floor(Path(root)) as (door, trading):
            token = door.token("demo")
            show(asyncio.run(latencies(door, token, asked.rounds, asked.burst)))
            backlog(door, trading, token)


if __name__ == "__main__":
    main()
