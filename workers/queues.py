"""Every queue of the house: its concurrency, time limit, tries, expiry and retry class, and what runs by itself."""

from typing import Final

from core.model.retries import RetryClass
from core.ports.jobs import QueueLimits, Schedule

QUEUES: Final[dict[str, QueueLimits]] = {
    queue.name: queue
    for queue in (
        # Reads. Somebody waits, so a failure is told at once; an answer nobody fetched within ten minutes is cheaper
        # asked for again.
        QueueLimits(
            name="database",
            concurrency=64,
            timeout_s=30,
            tries=3,
            expiry_s=60,
            keep_s=600,
            drain_s=10,
            retry=RetryClass.NEVER,
        ),
        # What reaches a broker. Late is wrong, and what may have happened is looked for before it is done again.
        QueueLimits(
            name="trading",
            concurrency=32,
            timeout_s=20,
            tries=5,
            expiry_s=30,
            keep_s=3_600,
            drain_s=10,
            retry=RetryClass.RECONCILE_FIRST,
        ),
        # Watching the house. Nobody waits.
        QueueLimits(
            name="chain",
            concurrency=8,
            timeout_s=30,
            tries=5,
            expiry_s=300,
            keep_s=600,
            drain_s=5,
            retry=RetryClass.WHEN_UNAVAILABLE,
        ),
    )
}

SCHEDULES: Final = (
    Schedule(function="audit.seal", queue="database", every_s=30),
    Schedule(function="chain.probe_queues", queue="chain", every_s=10),
    Schedule(function="dead-letters.move", queue="database", every_s=2),
    Schedule(function="dead-letters.purge", queue="database", every_s=3_600),
    Schedule(function="grants.purge", queue="database", every_s=3_600),
    Schedule(function="idempotency.purge", queue="database", every_s=3_600),
    Schedule(function="retention.enforce", queue="database", every_s=3_600),
)
assert {schedule.queue for schedule in SCHEDULES} <= set(QUEUES), "every schedule's queue is there"
