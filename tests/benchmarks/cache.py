"""What the cache is worth over the API: the same questions to a worker that keeps answers and to one that does not.

Run with `python -m tests.benchmarks.cache`. About 2,000 different questions, asked as often as Zipf's law (s = 1.05)
has it: bars of 20 symbols on 20 days in 5 intervals, lists of symbols, records. Meanwhile a writer stores ticks of
three of the symbols on the last day, ten inserts a second, for each of the two. Every answer about the last day is
checked to hold what was acknowledged before it was asked for.
"""

import asyncio
import dataclasses
import random
import secrets
import statistics
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from core.adapters.clickhouse.client import connect
from core.infrastructure.central_hub import open_hub
from core.settings import CacheSettings, Settings
from tests import gateways
from tests.caches import Ticks
from tests.engines import House, running_house
from tests.gateways import FrontDoor

SYMBOLS = [f"SYM{number:02}" for number in range(20)]
WRITTEN = SYMBOLS[:3]
DAYS = 20
FIRST_DAY = 20_004  # 2024-10-08
DAY_MS = 86_400_000
TICKS_A_DAY = 4_320
INTERVALS = ("5m", "15m", "30m", "1h", "4h")
RECORDS = 90
EXPONENT = 1.05
CONNECTIONS = 8
SECONDS_CACHED, SECONDS_BARE = 55, 18
"""Of each of two turns."""
PLANNED = 50_000
WRITER_EPOCH = 2
MOVING_FIRST, MOVING_EVERY = 5, 20
"""The ranks of the questions about what is being written: one in twenty that are asked."""
WRITE_INTERVAL_S = 0.1


@dataclass(slots=True)
class Side:
    """A gateway, its worker, and the writer of its ticks. times: ms by sort of question."""

    name: str
    door: FrontDoor
    times: dict[str, list[float]] = field(default_factory=dict)
    inserts_ms: list[float] = field(default_factory=list)
    stale: int = 0
    seconds: float = 0.0
    written: Counter[tuple[str, int]] = field(default_factory=Counter)
    turns: int = 0

    @property
    def asked(self) -> int:
        return sum(map(len, self.times.values()))


def questions() -> list[tuple[str, str]]:
    """Return every question with its sort, those asked most first."""
    found = [("symbols", f"/v1/symbols{source}") for source in ("", "?source=demo", "?source=demo2")]
    found += [("record", f"/v1/instruments/i{number}") for number in range(RECORDS)]
    for symbol in SYMBOLS:
        for day in range(DAYS):
            start = (FIRST_DAY + day) * DAY_MS
            for interval in INTERVALS:
                path = f"/v1/bars?symbol={symbol}&interval={interval}&from={start}&to={start + DAY_MS - 1}"
                path += "&limit=1500"
                moving = day == DAYS - 1 and symbol in WRITTEN
                found.append(("bars being written" if moving else "bars", path))
    random.Random(11).shuffle(found)
    moving = [question for question in found if question[0] in {"bars being written", "symbols"}]
    ranked = [question for question in found if question not in moving]
    for number, question in enumerate(moving):
        ranked.insert(MOVING_FIRST + number * MOVING_EVERY, question)
    return ranked


async def fill(settings: Settings) -> None:
    client = await connect(settings.clickhouse, settings.clickhouse.database)
    span = len(SYMBOLS) * TICKS_A_DAY
    for day in range(DAYS):
        start = (FIRST_DAY + day) * DAY_MS
        await client.command(
            f"insert into ticks select 'demo', 1, {day * span} + number + 1,"
            f" concat('SYM', leftPad(toString(number % {len(SYMBOLS)}), 2, '0')),"
            f" intDiv({start} + number * {DAY_MS // span}, 1000), {start} + number * {DAY_MS // span},"
            f" 1.1 + number % 977 / 100000, 1.2, 0, 0, 0, 6, 'OK', 0, 7200, 0 from numbers({span})"
        )
    await client.close()


async def write(side: Side, ticks: Ticks, ended: asyncio.Event) -> None:
    dice = random.Random(5)
    while not ended.is_set():
        began = time.perf_counter()
        await ticks.write(dice.choice(WRITTEN), FIRST_DAY + DAYS - 1, 10)
        side.inserts_ms.append((time.perf_counter() - began) * 1_000)
        await asyncio.sleep(WRITE_INTERVAL_S)


async def ask(
    side: Side, ticks: Ticks, plan: list[tuple[str, str]], http: httpx.AsyncClient, until_s: float
) -> None:
    while plan and time.perf_counter() < until_s:
        sort, path = plan.pop()
        acknowledged = dict(ticks.acknowledged)
        began = time.perf_counter()
        answer = await http.get(path)
        side.times.setdefault(sort, []).append((time.perf_counter() - began) * 1_000)
        assert answer.status_code == 200, answer.text
        if sort == "bars being written":
            symbol = httpx.URL(path).params["symbol"]
            found = sum(bar["tick_volume"] for bar in answer.json()["items"])
            written = acknowledged.get((symbol, FIRST_DAY + DAYS - 1), 0)
            side.stale += found < TICKS_A_DAY + written


async def measure(side: Side, seconds: float) -> None:
    known = questions()
    side.turns += 1
    weights = [1 / (rank + 1) ** EXPONENT for rank in range(len(known))]
    plan = random.Random(side.turns).choices(known, weights, k=PLANNED)
    headers = {"Authorization": f"Bearer {side.door.token()}"}
    async with (
        open_hub(side.door.settings, {"tick_store"}) as hub,
        httpx.AsyncClient(base_url=side.door.url, timeout=60, headers=headers) as http,
    ):
        body = {
            "symbol": "EURUSD",
            "base_currency": "EUR",
            "profit_currency": "USD",
            "margin_currency": "EUR",
        }
        body |= {"digits": 5} | dict.fromkeys(("tick_size", "contract_size", "volume_min"), "0.01")
        body |= {"volume_max": "100", "volume_step": "0.01"}
        for number in range(RECORDS):
            key = {"Idempotency-Key": secrets.token_hex(16)}
            created = await http.post("/v1/instruments", json={"id": f"i{number}", **body}, headers=key)
            assert created.status_code in {201, 409}, created.text
        ticks, ended = Ticks(hub), asyncio.Event()
        # The same install goes on: a new one would end every answer of the turn before.
        ticks.epoch, ticks.seq, ticks.acknowledged = WRITER_EPOCH, side.written.total(), side.written
        writing = asyncio.create_task(write(side, ticks, ended))
        began = time.perf_counter()
        await asyncio.gather(*(ask(side, ticks, plan, http, began + seconds) for _ in range(CONNECTIONS)))
        side.seconds += time.perf_counter() - began
        ended.set()
        await writing


def outcomes(door: FrontDoor) -> Counter[tuple[str, str]]:
    """Return what the worker counted: answers by kind of question and where they came from."""
    found: Counter[tuple[str, str]] = Counter()
    text = httpx.get(f"http://127.0.0.1:{door.settings.worker.health_port}/metrics").text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "tickgate_cache_answers_total":
                found[sample.labels["what"], sample.labels["outcome"]] += int(sample.value)
    return found


def hit_rate(counts: Counter[tuple[str, str]], what: str | None = None) -> float:
    of = {key: count for key, count in counts.items() if what in (None, key[0])}
    missed = sum(count for (_, outcome), count in of.items() if outcome in {"loaded", "bypassed"})
    return 1 - missed / max(1, sum(of.values()))


def percentile(times: list[float], part: float) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * part))]


def table(sides: list[Side]) -> None:
    print("\n| ms p50 / p99 | " + " | ".join(side.name for side in sides) + " |")
    print("|---|" + "---|" * len(sides))
    for sort in sorted(set.intersection(*(set(side.times) for side in sides))):
        cells = [
            f"{statistics.median(s.times[sort]):.1f} / {percentile(s.times[sort], 0.99):.0f}" for s in sides
        ]
        print(f"| {sort} | " + " | ".join(cells) + " |")
    rates = [f"{side.asked / side.seconds:.0f}" for side in sides]
    print("| answers a second, 8 connections | " + " | ".join(rates) + " |")
    inserts = [f"{statistics.median(s.inserts_ms):.1f} / {percentile(s.inserts_ms, 0.99):.0f}" for s in sides]
    print("| an insert of the writer beside | " + " | ".join(inserts) + " |")
    print(
        "| answers that lacked an acknowledged tick | " + " | ".join(str(side.stale) for side in sides) + " |"
    )


def side(house: House, root: Path, name: str, database: int, enabled: bool) -> Side:
    cache = CacheSettings(enabled=enabled)
    settings = msgspec.structs.replace(house.settings, cache=cache)
    return Side(name, gateways.build(root / name, dataclasses.replace(house, settings=settings), database))


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="tickgate-bench-", dir="/dev/shm") as directory:
        root = Path(directory)
        root.chmod(0o711)
        with running_house(root) as house:
            kept, bare = side(house, root, "cache", 1, True), side(house, root, "none", 2, False)
            with gateways.running(kept.door, []), gateways.running(bare.door, []):
                for one in (kept, bare):
                    asyncio.run(fill(one.door.settings))
                asyncio.run(measure(bare, SECONDS_BARE))
                asyncio.run(measure(kept, SECONDS_CACHED))
                cold = outcomes(kept.door)
                asyncio.run(measure(kept, SECONDS_CACHED))
                warm = outcomes(kept.door) - cold
                asyncio.run(measure(bare, SECONDS_BARE))
    table([kept, bare])
    print(f"\n{len(questions())} different questions, s = {EXPONENT}.")
    for name, counts in (("from empty", cold), ("second half", warm)):
        whats = ", ".join(f"{what} {hit_rate(counts, what):.1%}" for what in ("bars", "symbols"))
        print(f"hit rate {name}: {hit_rate(counts):.1%} ({whats}) {dict(counts)}")


if __name__ == "__main__":
    main()
