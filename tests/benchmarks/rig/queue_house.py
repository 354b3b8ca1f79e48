"""Our queue, stock arq and the floor: `python -m tests.benchmarks.rig.queue_house SYSTEM worker|client PORT`.

The floor is the least that can be called a queue: a Redis stream read by a consumer group, answers kept and published
in one transaction, over our own multiplexed connection; no claim, lease, retry, time limit, metrics or log.
"""

import asyncio
import itertools
import os
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import hiredis
import uvloop
from arq.connections import RedisSettings as ArqSettings
from arq.connections import create_pool
from arq.worker import Worker, func

from core.adapters.redis.connection import Connection, connect
from core.adapters.redis.job_queue import open_job_queue
from core.adapters.redis.job_queue_worker import RedisJobRunner
from core.infrastructure.error_handler import report
from core.messages import codec
from core.messages.jobs import Answer, TickQuery
from core.ports.jobs import JobFunction
from core.settings import RedisSettings, Secret, Settings
from core.telemetry.logs import configure_logging
from tests.benchmarks.rig.driving import ANSWER, BODY, QUESTION, drive, run_job
from tests.engines import PASSWORD
from workers.queues import QUEUES

FUNCTION = "market.ticks"
QUERY = TickQuery(**QUESTION)
TIMEOUT_MS = 60_000
TENANTS = 32
FAST_POLL_S = 0.001
FAST_JOBS_MAX = 100
STREAM = "floor"
GROUP = "workers"
KEPT_MS = 600_000
FLOOR_TIMEOUT_S = 30.0


def settings_of(port: int) -> Settings:
    return Settings(redis=RedisSettings(port=port, password=Secret(PASSWORD)))


# -- ours ----------------------------------------------------------------------------------------------------
async def answer(ctx: dict[str, Any], request: Any, **_: Any) -> Answer:
    run_job(request)
    return Answer(content_type=ANSWER["content_type"], body=BODY.encode(), rows=ANSWER["rows"])


async def our_worker(port: int) -> None:
    runner = RedisJobRunner(settings_of(port).redis)
    await runner.run(QUEUES["database"], [JobFunction(name=FUNCTION, run=answer)], report, asyncio.Event())


async def our_client(port: int) -> None:
    async with open_job_queue(settings_of(port), {}) as queue:
        await queue.commands.wait()
        await queue.replies.wait()
        tenants = itertools.cycle(f"demo{number}" for number in range(TENANTS))
        await drive(
            lambda: queue.ask(FUNCTION, QUERY, tenant="demo", timeout_ms=TIMEOUT_MS),
            # One tenant may not leave that many jobs under way.
            lambda: queue.ask(FUNCTION, QUERY, tenant=next(tenants), timeout_ms=0),
        )


# -- stock arq -----------------------------------------------------------------------------------------------
async def stock_job(ctx: dict[str, Any], question: Any) -> dict[str, Any]:
    return run_job(question)


def arq_at(port: int) -> ArqSettings:
    return ArqSettings(host="127.0.0.1", port=port, password=PASSWORD)


async def arq_worker(port: int, **options: Any) -> None:
    functions = [func(stock_job, name=FUNCTION)]
    await Worker(functions, redis_settings=arq_at(port), handle_signals=False, **options).async_run()


async def arq_client(port: int, **options: float) -> None:
    pool = await create_pool(arq_at(port))

    async def post() -> Any:
        return await pool.enqueue_job(FUNCTION, QUESTION)

    async def ask() -> object:
        return await (await post()).result(timeout=TIMEOUT_MS / 1_000, **options)

    await drive(ask, post)


# -- the floor -----------------------------------------------------------------------------------------------
async def make_group(connection: Connection) -> None:
    # The other end may have made it.
    with suppress(hiredis.ReplyError):
        await connection.ask(("XGROUP", "CREATE", STREAM, GROUP, "0", "MKSTREAM"))


async def floor_worker(port: int) -> None:
    redis = settings_of(port).redis
    reading = await connect(redis, FLOOR_TIMEOUT_S)
    answering = await connect(redis, FLOOR_TIMEOUT_S)
    take = ("XREADGROUP", "GROUP", GROUP, "1", "COUNT", 100, "BLOCK", 5_000, "STREAMS", STREAM, ">")
    await make_group(reading)
    while True:
        (taken,) = await reading.ask(take)
        for entry, fields in taken[0][1] if taken else ():
            replies_to, number, body = fields[1], fields[3], fields[5]
            outcome = codec.encode(run_job(codec.decode(body)))
            answering.send(
                ("MULTI",),
                ("SET", b"floor:result:" + number, outcome, "PX", KEPT_MS),
                ("XACK", STREAM, GROUP, entry),
                ("XDEL", STREAM, entry),
                ("PUBLISH", replies_to, number + b" " + outcome),
                ("EXEC",),
            )


async def floor_client(port: int) -> None:
    redis = settings_of(port).redis
    waiting: dict[int, asyncio.Future[object]] = {}
    numbers = iter(range(1 << 60))

    def hear(message: bytes) -> None:
        number, _, outcome = message.partition(b" ")
        if future := waiting.pop(int(number), None):
            future.set_result(codec.decode(outcome))

    hearing: Connection = await connect(redis, FLOOR_TIMEOUT_S, hear)
    await hearing.ask(("SUBSCRIBE", "floor:replies"))
    commands = await connect(redis, FLOOR_TIMEOUT_S)
    await make_group(commands)

    async def post(number: int = -1) -> None:
        body = codec.encode(QUESTION)
        await commands.ask(("XADD", STREAM, "*", "to", "floor:replies", "number", number, "body", body))

    async def ask() -> object:
        number = next(numbers)
        waiting[number] = future = asyncio.get_running_loop().create_future()
        await post(number)
        return await future

    await drive(ask, post)


MAINS: dict[tuple[str, str], Callable[[int], Coroutine[Any, Any, None]]] = {
    ("ours", "worker"): our_worker,
    ("ours", "client"): our_client,
    ("arq", "worker"): arq_worker,
    ("arq", "client"): arq_client,
    ("arq-fast", "worker"): lambda port: arq_worker(port, poll_delay=FAST_POLL_S, max_jobs=FAST_JOBS_MAX),
    ("arq-fast", "client"): lambda port: arq_client(port, poll_delay=FAST_POLL_S),
    ("floor", "worker"): floor_worker,
    ("floor", "client"): floor_client,
}


def main() -> None:
    system, end, port = sys.argv[1:]
    with Path(os.devnull).open("w") as sys.stdout:
        if system == "ours":
            # Written as in production, a line for every job included, only to nowhere.
            configure_logging(end, "info")
        uvloop.run(MAINS[system, end](int(port)))


if __name__ == "__main__":
    main()
