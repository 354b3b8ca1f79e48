"""How long a bridge takes to find out where to go on in a growing store: the resume query, with and without a floor.

Run with `python -m tests.benchmarks.resume [--rows N]`. One source of N rows and four neighbours of N / 8 each.
"""

import argparse
import asyncio
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from core.infrastructure.central_hub import open_hub
from core.settings import Settings
from tests.benchmarks.ingest import block
from tests.engines import bring_forward, running_house

BLOCK_ROWS = 400_000
ASKED = 20


async def fill(settings: Settings, source: str, rows: int) -> None:
    async with open_hub(settings, {"tick_store"}) as hub:
        for start in range(0, rows, BLOCK_ROWS):
            for insert in hub["tick_store"].prepare(block(start + 1, BLOCK_ROWS, source)):
                await hub["tick_store"].append(insert, 1)


async def asked_ms(settings: Settings, source: str, floor: int) -> float:
    async with open_hub(settings, {"tick_store"}) as hub:
        taken = []
        for _ in range(ASKED):
            started = time.perf_counter()
            await hub["tick_store"].durable_seq(source, 1, floor)
            taken.append((time.perf_counter() - started) * 1_000)
    return float(np.median(taken))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000_000)
    rows = parser.parse_args().rows
    shm = Path("/dev/shm")
    root = Path(tempfile.mkdtemp(prefix="tickgate-bench-", dir=shm if shm.is_dir() else None))
    root.chmod(0o711)
    try:
        with running_house(root / "house") as house:
            asyncio.run(bring_forward(house.settings))
            print(
                f"{'rows of the source':>20} {'without a floor':>18} {'with a floor':>14}   ms, median of {ASKED}"
            )
            stored = 0
            for step in (rows // 10, rows // 2, rows):
                asyncio.run(fill_more(house.settings, stored, step))
                stored = step
                whole = asyncio.run(asked_ms(house.settings, "resume", 0))
                floored = asyncio.run(asked_ms(house.settings, "resume", step - 100_000))
                print(f"{step:20,} {whole:18.1f} {floored:14.1f}")
    finally:
        shutil.rmtree(root, ignore_errors=True)


async def fill_more(settings: Settings, stored: int, wanted: int) -> None:
    async with open_hub(settings, {"tick_store"}) as hub:
        for start in range(stored, wanted, BLOCK_ROWS):
            for insert in hub["tick_store"].prepare(block(start + 1, BLOCK_ROWS, "resume")):
                await hub["tick_store"].append(insert, 1)
        for neighbour in range(4):
            await fill(settings, f"neighbour{neighbour}-{wanted}", wanted // 8)


if __name__ == "__main__":
    main()
