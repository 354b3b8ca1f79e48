"""Our queue beside stock arq at its best polling, on one Valkey: `python -m tests.benchmarks.job_queue`."""

import asyncio
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
import uvloop
from arq.connections import ArqRedis, RedisSettings, create_pool
from arq.worker import Worker, func

from core.adapters.redis.job_queue import RedisJobQueue, open_job_queue
from core.messages import codec
from core.messages.jobs import TickQuery
from core.settings import RedisSettings as OurRedisSettings
from core.settings import Secret, Settings
from tests.engines import PASSWORD, build_house
from tests.queue_workers import FUNCTIONS, work

ROUNDS = 3
ALONE = 1_000
IN_FLIGHT = 50
CROWD = 5_000
STOCK_POLL_S = 0.01
STOCK_QUEUE = "arq:queue:stock"
TICKS = TickQuery(symbol="EURUSD")

Ask = Callable[[], Awaitable[object]]


async def stock_pool(settings: Settings) -> ArqRedis:
    return await create_pool(
        RedisSettings(host="127.0.0.1", port=settings.redis.port, password=PASSWORD),
        default_queue_name=STOCK_QUEUE,
        job_serializer=codec.encode,
        job_deserializer=codec.decode,
    )


async def stock_worker(settings: Settings) -> None:
    worker = Worker(
        functions=[func(function.run, name=function.name) for function in FUNCTIONS],
        queue_name=STOCK_QUEUE,
        redis_pool=await stock_pool(settings),
        poll_delay=STOCK_POLL_S,
        max_jobs=100,
        handle_signals=False,
        job_serializer=codec.encode,
        job_deserializer=codec.decode,
    )
    await worker.async_run()


def ours(queue: RedisJobQueue) -> Ask:
    return lambda: queue.ask("market.ticks", TICKS, tenant="demo", timeout_ms=10_000)


def stock(pool: ArqRedis) -> Ask:
    async def ask() -> object:
        job = await pool.enqueue_job("market.ticks", {"symbol": "EURUSD"}, tenant="demo")
        assert job is not None
        return await job.result(timeout=10, poll_delay=STOCK_POLL_S)

    return ask


async def alone(ask: Ask, count: int) -> tuple[float, float]:
    """Return the median and the 99th percentile of one round trip at a time, in ms."""
    spans = []
    for _ in range(count):
        started_s = time.perf_counter()
        await ask()
        spans.append((time.perf_counter() - started_s) * 1_000)
    spans.sort()
    return spans[count // 2], spans[count * 99 // 100]


async def crowd(ask: Ask, count: int) -> float:
    """Return answers a second with IN_FLIGHT questions under way."""
    places = asyncio.Semaphore(IN_FLIGHT)

    async def one() -> None:
        async with places:
            await ask()

    started_s = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(count)))
    return count / (time.perf_counter() - started_s)


async def compare(settings: Settings) -> None:
    pool = await stock_pool(settings)
    async with open_job_queue(settings, {}) as queue:
        await queue.commands.wait()
        systems = {"ours": ours(queue), f"arq polling every {STOCK_POLL_S * 1_000:g} ms": stock(pool)}
        for ask in systems.values():
            await ask()
        for _ in range(ROUNDS):
            for name, ask in systems.items():
                scale = 1 if name == "ours" else 10
                p50_ms, p99_ms = await alone(ask, ALONE // scale)
                rate = await crowd(ask, CROWD // scale)
                print(f"{name:28} p50 {p50_ms:7.3f} ms  p99 {p99_ms:7.3f} ms  {rate:8.0f}/s", flush=True)
    await pool.aclose(close_connection_pool=True)


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    if len(sys.argv) > 1:
        settings = build_settings(int(sys.argv[2]))
        uvloop.run(stock_worker(settings) if sys.argv[1] == "stock" else work(settings, asyncio.Event()))
        return
    with tempfile.TemporaryDirectory() as directory:
        house = build_house(Path(directory) / "house")
        valkey = house.engines["valkey"]
        valkey.start()
        valkey.wait()
        workers = [
            subprocess.Popen([sys.executable, "-m", "tests.benchmarks.job_queue", name, str(valkey.port)])
            for name in ("ours", "stock")
        ]
        try:
            uvloop.run(compare(house.settings))
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
            valkey.stop()


def build_settings(port: int) -> Settings:
    return Settings(redis=OurRedisSettings(port=port, password=Secret(PASSWORD)))


if __name__ == "__main__":
    main()
