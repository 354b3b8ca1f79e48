"""The peers' queues, each as its documentation sets it up, with its fastest stated way to wait for an answer.

Runs with the peers' own packages: `python -m tests.benchmarks.rig.queue_peers SYSTEM worker|client PORT`, the password
in the environment. Every worker is one process; a library is imported only for its own system.
"""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

import uvloop

from tests.benchmarks.rig.driving import QUESTION, drive, drive_blocking, run_job

POLL_S = 0.001
JOBS_MAX = 100
SAQ_JOBS_MAX = 50
"""Each takes a connection; with 100 the pool of its Redis client is exhausted and jobs are lost."""
THREADS = 8
TIMEOUT_S = 60


def url(port: int) -> str:
    return f"redis://:{os.environ['REDIS_PASSWORD']}@127.0.0.1:{port}/0"


# -- saq -----------------------------------------------------------------------------------------------------
async def _saq_job(ctx: Any, *, question: Any) -> Any:
    return run_job(question)


async def _saq(end: str, port: int) -> None:
    saq = importlib.import_module("saq")
    queue = saq.Queue.from_url(url(port))
    if end == "worker":
        await saq.Worker(queue, functions=[("job", _saq_job)], concurrency=SAQ_JOBS_MAX).start()
        return
    await queue.connect()
    await drive(
        lambda: queue.apply("job", question=QUESTION, poll_interval=POLL_S),
        lambda: queue.enqueue("job", question=QUESTION),
    )


def saq(end: str, port: int) -> None:
    uvloop.run(_saq(end, port))


# -- taskiq --------------------------------------------------------------------------------------------------
async def _taskiq(end: str, port: int) -> None:
    redis = importlib.import_module("taskiq_redis")
    results = redis.RedisAsyncResultBackend(redis_url=url(port))
    broker = redis.RedisStreamBroker(url=url(port)).with_result_backend(results)

    @broker.task(task_name="job")
    async def job(question: dict[str, Any]) -> dict[str, Any]:
        return run_job(question)

    if end == "worker":
        receiver = importlib.import_module("taskiq.api")
        broker.is_worker_process = True
        await receiver.run_receiver_task(broker, run_startup=True, max_async_tasks=JOBS_MAX)
        return
    await broker.startup()

    async def ask() -> object:
        task = await job.kiq(QUESTION)
        return await task.wait_result(check_interval=POLL_S, timeout=TIMEOUT_S)

    await drive(ask, lambda: job.kiq(QUESTION))


def taskiq(end: str, port: int) -> None:
    uvloop.run(_taskiq(end, port))


# -- streaq --------------------------------------------------------------------------------------------------
async def _streaq(end: str, port: int) -> None:
    library = importlib.import_module("streaq")
    worker = library.Worker(redis_url=url(port), concurrency=JOBS_MAX, handle_signals=False)

    @worker.task(name="job")
    async def job(question: dict[str, Any]) -> dict[str, Any]:
        return run_job(question)

    if end == "worker":
        await worker.run_async()
        return
    async with worker:

        async def post() -> Any:
            return await job.enqueue(QUESTION)

        async def ask() -> object:
            return await (await post()).result(timeout=TIMEOUT_S)

        await drive(ask, post)


def streaq(end: str, port: int) -> None:
    uvloop.run(_streaq(end, port))


# -- rq ------------------------------------------------------------------------------------------------------
def rq(end: str, port: int) -> None:
    redis = importlib.import_module("redis").Redis.from_url(url(port))
    library = importlib.import_module("rq")
    queue = library.Queue(connection=redis)
    if end == "worker":
        # Its default worker forks for every job; this one does not.
        library.SimpleWorker([queue], connection=redis).work(logging_level="ERROR")
        return
    path = "tests.benchmarks.rig.driving.run_job"
    drive_blocking(lambda: queue.enqueue(path, QUESTION), lambda job: job.latest_result(timeout=TIMEOUT_S))


# -- dramatiq ------------------------------------------------------------------------------------------------
def dramatiq(end: str, port: int) -> None:
    library = importlib.import_module("dramatiq")
    brokers = importlib.import_module("dramatiq.brokers.redis")
    results = importlib.import_module("dramatiq.results")
    backends = importlib.import_module("dramatiq.results.backends.redis")
    broker = brokers.RedisBroker(url=url(port))
    broker.add_middleware(results.Results(backend=backends.RedisBackend(url=url(port)), store_results=True))
    library.set_broker(broker)
    job = library.actor(run_job, actor_name="job")
    if end == "worker":
        worker = library.Worker(broker, worker_threads=THREADS)
        worker.start()
        worker.join()
        importlib.import_module("threading").Event().wait()
    drive_blocking(
        lambda: job.send(QUESTION), lambda message: message.get_result(block=True, timeout=TIMEOUT_S * 1_000)
    )


# -- celery --------------------------------------------------------------------------------------------------
def celery(end: str, port: int) -> None:
    app = importlib.import_module("celery").Celery("peers", broker=url(port), backend=url(port))
    app.conf.update(worker_redirect_stdouts=False, broker_connection_retry_on_startup=True)
    job = app.task(name="job")(run_job)
    if end == "worker":
        # One process that runs jobs itself; its default forks one for each processor.
        app.worker_main(["worker", "-P", "solo", "--loglevel=ERROR", "--without-gossip", "--without-mingle"])
        return
    drive_blocking(lambda: job.delay(QUESTION), lambda result: result.get(timeout=TIMEOUT_S))


MAINS: dict[str, Callable[[str, int], None]] = {
    "saq": saq,
    "taskiq": taskiq,
    "streaq": streaq,
    "rq": rq,
    "dramatiq": dramatiq,
    "celery": celery,
}

if __name__ == "__main__":
    MAINS[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
