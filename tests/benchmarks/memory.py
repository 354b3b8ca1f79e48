"""What memory the two habits cost that we do without: a dict for every tick, and every driver imported by everybody.

Run with `python -m tests.benchmarks.memory`. Each figure is of a process of its own: resident memory.
"""

import subprocess
import sys

from workers.queues import QUEUES

TICKS = 1_000_000
ROUNDS = 3

_RESIDENT = "import psutil; resident = lambda: psutil.Process().memory_info().rss\n"
_DICTS = """
import random
before = resident()
kept = [
    {"time": 1_728_000_000 + n // 1_000, "bid": 1.1 + random.random(), "ask": 1.2 + random.random(), "last": 0.0,
     "volume": 0, "time_msc": 1_728_000_000_000 + n, "flags": 6, "volume_real": 0.0, "symbol": "EURUSD"}
    for n in range(TICKS)
]
print(resident() - before)
"""
_COLUMNS = """
import numpy as np
from core.model.ticks import TICK_DTYPE
rng = np.random.default_rng(1)
before = resident()
kept = np.empty(TICKS, TICK_DTYPE)
at = np.arange(TICKS, dtype=np.int64)
kept["time"], kept["time_msc"] = 1_728_000_000 + at // 1_000, 1_728_000_000_000 + at
kept["bid"], kept["ask"] = 1.1 + rng.random(TICKS), 1.2 + rng.random(TICKS)
kept["last"], kept["volume"], kept["flags"], kept["volume_real"] = 0.0, 0, 6, 0.0
del at
print(resident() - before)
"""
_ALL = """
import asyncpg, redis.asyncio, clickhouse_connect, chdb, weaviate, arango, pyarrow.parquet, starlette, granian, arq
import authlib.integrations.httpx_client
print(resident())
"""
_OURS = """
from core.infrastructure.central_hub import opening_order
from core.infrastructure.import_manager import resolve
NEEDS
[resolve(provider.opens) for provider in opening_order(needs)]
print(resident())
"""
_WORKER = (
    "from workers.workshops import WORKSHOPS\nneeds = WORKSHOPS['{queue}'].needs\n"
    "[resolve(reference) for reference in WORKSHOPS['{queue}'].functions]"
)
_GATEWAY = "import gateway.app\nfrom gateway.app import NEEDS as needs"


def measured(script: str) -> float:
    """Return megabytes, the least of ROUNDS: what else a round took is chance."""
    code = _RESIDENT + script.replace("TICKS", str(TICKS))
    command = [sys.executable, "-W", "ignore", "-c", code]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(ROUNDS)]
    return min(int(run.stdout) for run in runs) / 1e6


def row(name: str, size_mb: float, whole_mb: float) -> None:
    print(f"| {name:48} | {size_mb:7.1f} MB | {100 * (1 - size_mb / whole_mb):5.1f} % |", flush=True)


def main() -> None:
    print(f"| {TICKS:,} ticks | resident | less |\n|---|---|---|")
    dicts = measured(_DICTS)
    row("a dict for each, in a list: the baseline", dicts, dicts)
    row("rows of TICK_DTYPE, as they cross the bridge", measured(_COLUMNS), dicts)
    print("\n| process | resident | less |\n|---|---|---|")
    everything = measured(_ALL)
    row("every driver imported: the baseline", everything, everything)
    row("gateway", measured(_OURS.replace("NEEDS", _GATEWAY)), everything)
    for queue in QUEUES:
        row(f"worker {queue}", measured(_OURS.replace("NEEDS", _WORKER.format(queue=queue))), everything)
    row("a Python process that imported nothing", measured("print(resident())"), everything)


if __name__ == "__main__":
    main()
