"""The two ends of a job queue under measurement, each in a process of its own; only the standard library.

The measuring program tells a client what to do, a line each: `alone JOBS SECONDS`, `crowd JOBS SECONDS`, `post JOBS 0`.
Every answer, and a worker's word that its backlog is done, is a line of JSON behind a mark: libraries print too.
"""

import asyncio
import json
import os
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

MARK = "@"
IN_FLIGHT = 50
QUESTION: dict[str, Any] = {
    "symbol": "EURUSD",
    "source": "demo",
    "start_ms": 1_728_000_000_000,
    "stop_ms": 1_728_086_400_000,
    "limit": 100,
}
BODY = json.dumps(
    {"items": [{"symbol": "EURUSD", "bid": "1.08421", "ask": "1.08423"}] * 3, "next_cursor": None}
)
ANSWER: dict[str, Any] = {"content_type": "application/json", "body": BODY, "rows": 3}

Ask = Callable[[], Awaitable[object]]


def say(**facts: object) -> None:
    # Not through print: some workers turn standard output into their log.
    os.write(1, f"{MARK}{json.dumps(facts)}\n".encode())


class Backlog:
    """Counts jobs as they run and says how long the whole backlog took, from the first to the last one's start."""

    def __init__(self) -> None:
        self.size = int(os.environ.get("BACKLOG", "0"))
        self.done = 0
        self.began = (0.0, 0.0)

    def count(self) -> None:
        self.done += 1
        if self.done == 1:
            self.began = (time.perf_counter(), time.process_time())
        if self.done == self.size:
            say(
                jobs_s=(self.size - 1) / (time.perf_counter() - self.began[0]),
                cpu_us=(time.process_time() - self.began[1]) * 1e6 / (self.size - 1),
            )


BACKLOG = Backlog()


def run_job(_question: object) -> dict[str, Any]:
    """Do what every system's job does: nothing but answer."""
    BACKLOG.count()
    return ANSWER


def _spread(spans_ms: list[float]) -> dict[str, Any]:
    spans_ms.sort()
    return {
        "jobs": len(spans_ms),
        "p50_ms": spans_ms[len(spans_ms) // 2],
        "p99_ms": spans_ms[len(spans_ms) * 99 // 100],
    }


# -- clients that wait in an event loop ----------------------------------------------------------------------
async def _alone(ask: Ask, jobs: int, until_s: float) -> dict[str, Any]:
    spans_ms: list[float] = []
    while len(spans_ms) < jobs and time.perf_counter() < until_s:
        started_s = time.perf_counter()
        await ask()
        spans_ms.append((time.perf_counter() - started_s) * 1e3)
    return _spread(spans_ms)


async def _crowd(ask: Ask, jobs: int, until_s: float) -> dict[str, Any]:
    done = 0

    async def asker() -> None:
        nonlocal done
        while done < jobs and time.perf_counter() < until_s:
            await ask()
            done += 1

    started_s = time.perf_counter()
    await asyncio.gather(*(asker() for _ in range(IN_FLIGHT)))
    return {"jobs": done, "rate": done / (time.perf_counter() - started_s)}


async def drive(ask: Ask, post: Ask) -> None:
    """Do what standard input says until it ends. ask: returns once answered; post: once the job is in the queue."""
    loop = asyncio.get_running_loop()
    say(ready=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        word, jobs, seconds = line.split()
        until_s = time.perf_counter() + float(seconds)
        if word == "alone":
            say(**await _alone(ask, int(jobs), until_s))
        elif word == "crowd":
            say(**await _crowd(ask, int(jobs), until_s))
        else:
            for first in range(0, int(jobs), IN_FLIGHT):
                await asyncio.gather(*(post() for _ in range(min(IN_FLIGHT, int(jobs) - first))))
            say(jobs=int(jobs))


# -- clients that block --------------------------------------------------------------------------------------
def drive_blocking(post: Callable[[], Any], wait: Callable[[Any], object]) -> None:
    """Do the same for a client without an event loop. wait: takes what `post` returned, returns once answered."""
    say(ready=True)
    for line in iter(sys.stdin.readline, ""):
        word, jobs, seconds = line.split()
        until_s = time.perf_counter() + float(seconds)
        if word == "alone":
            spans_ms: list[float] = []
            while len(spans_ms) < int(jobs) and time.perf_counter() < until_s:
                started_s = time.perf_counter()
                wait(post())
                spans_ms.append((time.perf_counter() - started_s) * 1e3)
            say(**_spread(spans_ms))
        elif word == "crowd":
            say(**_crowd_blocking(post, wait, int(jobs), until_s))
        else:
            for _ in range(int(jobs)):
                post()
            say(jobs=int(jobs))


def _crowd_blocking(
    post: Callable[[], Any], wait: Callable[[Any], object], jobs: int, until_s: float
) -> dict[str, Any]:
    waiting: deque[Any] = deque()
    done = 0
    started_s = time.perf_counter()
    while done < jobs and time.perf_counter() < until_s:
        while len(waiting) < IN_FLIGHT:
            waiting.append(post())
        wait(waiting.popleft())
        done += 1
    rate = done / (time.perf_counter() - started_s)
    while waiting:
        wait(waiting.popleft())
    return {"jobs": done, "rate": rate}
