"""Every queue of the house: its concurrency, time limit, tries and expiry, and nowhere else."""

from typing import Final

from core.ports import QueueLimits

QUEUES: Final[dict[str, QueueLimits]] = {
    queue.name: queue
    for queue in (
        # Reads. An answer nobody fetched within ten minutes is cheaper asked for again.
        QueueLimits(
            name="database", concurrency=64, timeout_s=30, tries=3, expiry_s=60, keep_s=600, drain_s=10
        ),
    )
}
