"""What it costs to tell streams of a commit, and how soon they read it: `python -m tests.benchmarks.trail_news`.

Tenants append to their trails at once, turn about in the same run: telling nobody, by NOTIFY within the transaction
(which this product does not do), by our news behind it.
"""

import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from core.infrastructure.central_hub import Hub, open_hub
from core.model.audit import AuditEvent
from core.settings import Settings
from gateway.trail_feed import TrailFeed
from tests.engines import bring_forward, running_house

ROUNDS: Final = 30
BURST_S: Final = 0.3
TENANTS: Final = 8
READS: Final = 200
NOBODY, NOTIFY, NEWS = "nobody is told", "NOTIFY within", "news behind"


async def commits_each_s(hub: Hub, how: str) -> float:
    tells: Callable[[str], None] = hub["trail_news"].moved if how == NEWS else lambda _tenant: None
    hub["audit"].tells(tells)
    # As many statements each time.
    statement = "notify trail" if how == NOTIFY else "select 1"
    ends_s = time.perf_counter() + BURST_S

    async def append(tenant: str) -> int:
        count = 0
        while time.perf_counter() < ends_s:
            async with hub["order_ledger"].work(tenant) as work:
                await hub["audit"].append(work, AuditEvent(type="order.told", actor="client:c"))
                await work.connection.execute(statement)
            count += 1
        return count

    counts = await asyncio.gather(*(append(f"t{number}") for number in range(TENANTS)))
    return sum(counts) / BURST_S


async def read_ms(hub: Hub, feed: TrailFeed) -> list[float]:
    """Return how long after each commit a stream had read it."""
    hub["audit"].tells(hub["trail_news"].moved)
    took: list[float] = []
    after = 0
    with feed.follow("read") as bell:
        for _ in range(READS):
            bell.clear()
            async with hub["order_ledger"].work("read") as work:
                await hub["audit"].append(work, AuditEvent(type="order.told", actor="client:c"))
            committed_s = time.perf_counter()
            await bell.wait()
            after = (await feed.read("read", after))[-1].seq
            took.append((time.perf_counter() - committed_s) * 1_000)
    return sorted(took)


async def run(settings: Settings) -> None:
    async with (
        open_hub(settings, {"order_ledger", "audit", "trail_news"}) as hub,
        open_hub(settings, {"audit", "trail_ears"}) as reader,
    ):
        await hub["trail_news"].link.wait()
        await reader["trail_ears"].link.wait()
        feed = TrailFeed(reader["audit"], reader["trail_ears"])
        rates: dict[str, list[float]] = {NOBODY: [], NOTIFY: [], NEWS: []}
        await commits_each_s(hub, NOBODY)
        for _ in range(ROUNDS):
            for how in random.sample(list(rates), len(rates)):
                rates[how].append(await commits_each_s(hub, how))
        took = await read_ms(hub, feed)
    print(f"{TENANTS} tenants at once, medians of {ROUNDS} rounds; of the ratios within a round too")
    for how, found in rates.items():
        ratio = statistics.median(one / alone for one, alone in zip(found, rates[NOBODY], strict=True))
        print(f"{how:16} {statistics.median(found):8,.0f} commits/s {ratio:6.2f}")
    print(
        f"a commit is read after {took[len(took) // 2]:.2f} ms p50, {took[int(len(took) * 0.99)]:.2f} ms p99"
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as root, running_house(Path(root) / "house") as house:
        asyncio.run(bring_forward(house.settings))
        asyncio.run(run(house.settings))


if __name__ == "__main__":
    main()
