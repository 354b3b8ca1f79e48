"""Scheduled jobs run once a slot, however many workers there are."""

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import redis

from core.adapters.redis.job_queue import RedisJobQueue
from core.messages.jobs import Answer
from core.ports.jobs import JobFunction, Schedule
from core.settings import Settings
from tests.engines import House, wait_for
from tests.queue_engines import until
from tests.queue_workers import ALIVE, worker_process, working

SLOTS = 4


def test_three_worker_processes_run_it_once_in_every_slot(queue_house: House, tmp_path: Path) -> None:
    log = tmp_path / "runs"
    workers = [worker_process(queue_house, QUEUE_TEST_SCHEDULE_LOG=str(log)) for _ in range(3)]
    try:
        wait_for(lambda: log.exists() and len(log.read_text().splitlines()) > SLOTS, "enough slots", 30)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    runs = Counter(log.read_text().splitlines())
    assert set(runs.values()) == {1}
    first, *_, last = sorted(int(slot) for slot in runs)
    assert last - first + 1 == len(runs), "no slot was left out"


async def test_a_slot_nobody_lived_in_is_not_made_up_for(
    job_queue: RedisJobQueue, queue_settings: Settings, queue_valkey: redis.Redis
) -> None:
    runs: list[str] = []

    async def note(ctx: dict[str, Any], _request: Any, **_rest: Any) -> Answer:
        runs.append(ctx["job_id"])
        return ALIVE

    functions = [JobFunction(name="yearly", run=note)]
    schedules = [Schedule(function="yearly", queue="database", every_s=31_536_000)]
    for _ in range(2):
        async with working(queue_settings, functions, schedules):
            await until(lambda: _served(runs))
            # Time for a second run, if there were one: the hint is taken before this answer is.
            await until(lambda: job_queue.served("database"))
    slot = int(time.time()) // 31_536_000
    assert runs == [f"cron.yearly.{slot}"]


async def _served(runs: list[str]) -> bool:
    await asyncio.sleep(0)
    return bool(runs)


async def test_nobody_keeps_a_scheduled_jobs_result(
    job_queue: RedisJobQueue, queue_settings: Settings, queue_valkey: redis.Redis
) -> None:
    ended = asyncio.Event()

    async def note(_ctx: dict[str, Any], _request: Any, **_rest: Any) -> Answer:
        ended.set()
        return ALIVE

    schedules = [Schedule(function="yearly", queue="database", every_s=31_536_000)]
    async with working(queue_settings, [JobFunction(name="yearly", run=note)], schedules):
        await ended.wait()
    assert not queue_valkey.keys("arq:result:*")
    assert not queue_valkey.zcard("arq:queue:database")
