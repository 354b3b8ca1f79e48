"""What creating, reading, listing, updating and deleting a record takes, kind by kind: in its store, and over the API.

Run with `python -m tests.benchmarks.crud`. One caller, one thing after the other. The floor beside each is a bare
`select 1` of PostgreSQL through the same pool, so that a busy machine shows.
"""

import asyncio
import secrets
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import httpx
import msgspec

from core.infrastructure.central_hub import open_hub
from core.model.records import SHELVES, RecordKind
from core.ports.records import Records
from core.settings import Settings
from tests import gateways
from tests.engines import bring_forward, running_house
from tests.record_keepers import body_of

COUNT = 150
PAGE = 100
TENANT = "bench"
DEEDS = ("create", "read", "list", "update", "delete")

Times = dict[str, list[float]]


async def timed(times: Times, deed: str, done: Awaitable[Any]) -> Any:
    began = time.perf_counter()
    found = await done
    times[deed].append((time.perf_counter() - began) * 1_000)
    return found


async def in_store(keeper: Records, kind: RecordKind) -> Times:
    times: Times = defaultdict(list)
    for number in range(COUNT):
        name, versions = f"r{number:05}", [secrets.token_hex(16) for _ in range(2)]
        created = keeper.create(kind, TENANT, name, body_of(kind, number), version=versions[0])
        await timed(times, "create", created)
        await timed(times, "read", keeper.read(kind, TENANT, name))
        await timed(times, "list", keeper.page(kind, TENANT, after=None, limit=PAGE, where={}))
        body = body_of(kind, number + 1)
        updated = keeper.update(kind, TENANT, name, body, expected=versions[0], version=versions[1])
        await timed(times, "update", updated)
    for number in range(COUNT):
        await timed(times, "delete", keeper.delete(kind, TENANT, f"r{number:05}", expected=None))
    return times


async def over_api(http: httpx.AsyncClient, kind: RecordKind) -> Times:
    times: Times = defaultdict(list)
    path = f"/v1/{kind}"
    for number in range(COUNT):
        name = f"r{number:05}"
        body = msgspec.to_builtins(body_of(kind, number))
        key = {"Idempotency-Key": secrets.token_hex(16)}
        await fine(timed(times, "create", http.post(path, json={**body, "id": name}, headers=key)))
        found = await fine(timed(times, "read", http.get(f"{path}/{name}")))
        await fine(timed(times, "list", http.get(path, params={"limit": PAGE})))
        match = {"If-Match": found.headers["etag"]}
        await fine(timed(times, "update", http.put(f"{path}/{name}", json=body, headers=match)))
    for number in range(COUNT):
        any_version = {"If-Match": "*"}
        await fine(timed(times, "delete", http.delete(f"{path}/r{number:05}", headers=any_version)))
    return times


async def fine(asked: Awaitable[Any]) -> httpx.Response:
    answer: httpx.Response = await asked
    answer.raise_for_status()
    return answer


def show(kind: RecordKind, place: str, times: Times) -> None:
    cells = []
    for deed in DEEDS:
        p99 = statistics.quantiles(times[deed], n=100)[98]
        cells.append(f"{statistics.median(times[deed]):.1f} / {p99:.1f}")
    print(f"| {kind:15} | {place:16} | {' | '.join(cells)} |", flush=True)


async def stores(settings: Settings) -> None:
    kinds = [kind for kind in SHELVES if kind is not RecordKind.FLOWS]
    async with open_hub(settings, {"postgres", *(shelf.keeper for shelf in SHELVES.values())}) as hub:
        floor: Times = defaultdict(list)
        for _ in range(COUNT):
            await timed(floor, "ping", hub["postgres"].ping())
        print(f"floor: a pooled `select 1` takes {statistics.median(floor['ping']):.2f} ms")
        print(f"\n| ms, p50 / p99 | | {' | '.join(DEEDS)} |\n|---|---|---|---|---|---|---|")
        for kind in kinds:
            keeper = SHELVES[kind].keeper
            show(kind, f"in {keeper}", await in_store(hub[keeper], kind))


async def api(door: gateways.FrontDoor) -> None:
    headers = {"Authorization": f"Bearer {door.token('demo')}"}
    async with httpx.AsyncClient(base_url=door.url, headers=headers, timeout=30) as http:
        for kind in SHELVES:
            if kind is not RecordKind.FLOWS:
                show(kind, "over the API", await over_api(http, kind))


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="tickgate-bench-") as root:
        Path(root).chmod(0o711)
        with running_house(Path(root) / "house") as house:
            asyncio.run(bring_forward(house.settings))
            asyncio.run(stores(house.settings))
            door = gateways.build(Path(root) / "door", house)
            with gateways.running(door, []) as door:
                asyncio.run(api(door))


if __name__ == "__main__":
    main()
