"""How fast, and how surely, PostgreSQL with pgvector finds similar records: with and without filters, and by words.

Run with `python -m tests.benchmarks.similarity [--records N]`. Recall: how many of the ten nearest are found.
"""

import argparse
import asyncio
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.infrastructure.central_hub import Hub, open_hub
from core.model.records import Body, Incident, MarketWindow, RecordKind
from core.model.vectors import vector_of
from core.ports.similarity import Likeness
from core.settings import Settings
from tests.engines import bring_forward, running_house

ASKED = 60
FOUND = 10
OTHERS = 2
"""Other tenants, each with as many records."""
ENDS = ("atch", "ink", "order", "use", "ack", "eed")
WORDS = [f"{first}{second}" for first in "bcdfghklmnprstvz" for second in ENDS]
SHARES = {"of all": "", "of a tenth": "some", "of a hundredth": "rare"}


def share(number: int) -> str:
    """Return the value records are filtered by: one has a hundredth of the records, one a tenth."""
    return "rare" if number % 100 == 0 else "some" if number % 10 == 1 else "most"


def incident(source: random.Random, number: int) -> Incident:
    message = " ".join(source.choices(WORDS, k=source.randint(6, 14)))
    return Incident(message=message, service=share(number), category=source.choice("ABC"), at_ms=number)


def window(source: random.Random, number: int) -> MarketWindow:
    moves = np.cumsum(np.random.default_rng(source.getrandbits(32)).normal(0, 1e-4, 120))
    closes = np.exp(moves).round(6).tolist()
    return MarketWindow(symbol=share(number), interval="1m", start_ms=number, label="x", closes=closes)


MAKERS: Mapping[RecordKind, tuple[Callable[[random.Random, int], Body], str]] = {
    RecordKind.INCIDENTS: (incident, "service"),
    RecordKind.MARKET_WINDOWS: (window, "symbol"),
}


async def answered(hub: Hub, kind: RecordKind, questions: Sequence[Likeness]) -> tuple[str, list[list[str]]]:
    """Return the times of the questions as text, and what each found."""
    taken, found = [], []
    for question in (questions[0], *questions):
        started = time.perf_counter()
        matches = await hub["similarity"].similar(kind, "bench", question)
        taken.append((time.perf_counter() - started) * 1_000)
        found.append([match.record.id for match in matches])
    return f"{np.median(taken[1:]):8.1f} {np.percentile(taken[1:], 95):8.1f}", found[1:]


async def run(settings: Settings, records: int) -> None:
    source = random.Random(7)
    print(
        f"{records:,} records of the tenant, {OTHERS * records:,} of others; top {FOUND}, {ASKED} questions each"
    )
    print(f"{'':36} {'p50 ms':>8} {'p95 ms':>8} {'recall':>8}")
    async with open_hub(settings, {"similarity", "postgres"}) as hub:
        for kind, (make, field) in MAKERS.items():
            bodies = {f"{number:06}": make(source, number) for number in range(records)}
            print(f"{kind}, loading: {await loaded(hub, kind, bodies):,.0f} records/s")
            vectors = np.array([vector_of(body) for body in bodies.values()])
            asked = [np.array(vector_of(make(source, -1))) for _ in range(ASKED)]
            for name, value in SHARES.items():
                where = {field: value} if value else {}
                among = [number for number in range(records) if not value or share(number) == value]
                near = [Likeness(vector=one.tolist(), where=where, limit=FOUND) for one in asked]
                times, found = await answered(hub, kind, near)
                true = [
                    {f"{among[at]:06}" for at in np.argsort(-(vectors[among] @ one))[:FOUND]} for one in asked
                ]
                hits = sum(len(best & set(ids)) for best, ids in zip(true, found, strict=True))
                print(f"{f'{kind}, {name}':36} {times} {hits / sum(map(len, true)):8.2f}")
            if kind is RecordKind.INCIDENTS:
                texts = [" ".join(source.sample(WORDS, 3)) for _ in asked]
                times, _ = await answered(hub, kind, [Likeness(text=text) for text in texts])
                print(f"{f'{kind}, by three words':36} {times}")
                both: list[Any] = [
                    Likeness(text=text, vector=one.tolist()) for text, one in zip(texts, asked, strict=True)
                ]
                times, _ = await answered(hub, kind, both)
                print(f"{f'{kind}, by both':36} {times}")


async def loaded(hub: Hub, kind: RecordKind, bodies: Mapping[str, Body]) -> float:
    """Load the records for every tenant; return how many a second."""
    started = time.perf_counter()
    for tenant in ("bench", *(f"other{number}" for number in range(OTHERS))):
        await hub["similarity"].load(kind, tenant, bodies, version="0" * 32)
    rate = len(bodies) * (OTHERS + 1) / (time.perf_counter() - started)
    async with hub["postgres"].acquire() as connection:
        await connection.execute(f"analyze {kind.replace('-', '_')}", timeout=120)
    return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=10_000)
    records = parser.parse_args().records
    shm = Path("/dev/shm")
    root = Path(tempfile.mkdtemp(prefix="tickgate-bench-", dir=shm if shm.is_dir() else None))
    root.chmod(0o711)
    try:
        with running_house(root / "house") as house:
            asyncio.run(bring_forward(house.settings))
            asyncio.run(run(house.settings, records))
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
