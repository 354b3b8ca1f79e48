"""docs/queues.md says of every queue, schedule and metric what the tables in the code say."""

import re
from pathlib import Path
from typing import Final

from core.telemetry import metrics
from workers.queues import QUEUES, SCHEDULES

TEXT: Final = (Path(__file__).parents[2] / "docs" / "queues.md").read_text()


def test_every_queue_is_documented_as_it_is() -> None:
    for queue in QUEUES.values():
        row = (
            f"| `{queue.name}` | {queue.concurrency} | {queue.timeout_s:g} s | {queue.tries} | {queue.expiry_s:g} s"
            f" | {queue.keep_s:g} s | {queue.drain_s:g} s | `{queue.retry}` |"
        )
        assert row in TEXT


def test_every_schedule_is_documented() -> None:
    for schedule in SCHEDULES:
        every = "1 h" if schedule.every_s == 3_600 else f"{schedule.every_s} s"
        assert re.search(rf"^\|.*`{re.escape(schedule.function)}`.*\| {every} \|", TEXT, re.MULTILINE)


def test_every_metric_that_is_named_exists() -> None:
    known = {sample.name for metric in metrics.REGISTRY.collect() for sample in metric.samples}
    known |= {metric.name for metric in metrics.REGISTRY.collect()}
    known |= {f"{name}_total" for name in known}
    assert set(re.findall(r"tickgate_[a-z_]+", TEXT)) <= known
