"""The tables of queues, schedules, jobs and workshops fit together; failures are judged as their retry class says."""

from typing import Any

import pytest

from core.errors.categories import Category
from core.messages.jobs import JOBS
from core.model.retries import RetryClass, Verdict, judge
from core.settings import Settings
from workers.queues import QUEUES, SCHEDULES
from workers.workshops import WORKSHOPS, functions_of


class Anything(dict[str, Any]):
    """Stands for a hub whose services nobody uses."""

    def __missing__(self, _name: str) -> None:
        return None


def served(queue: str) -> set[str]:
    hub: Any = Anything()
    return {function.name for function in functions_of(queue, hub, Settings())}


@pytest.mark.parametrize("queue", QUEUES)
def test_a_workshop_serves_all_that_is_asked_of_its_queue(queue: str) -> None:
    asked = {name for name, kind in JOBS.items() if kind.queue == queue}
    scheduled = {schedule.function for schedule in SCHEDULES if schedule.queue == queue}
    assert served(queue) == asked | scheduled


@pytest.mark.parametrize("queue", QUEUES)
def test_a_workshop_asks_for_every_service_its_functions_take(queue: str) -> None:
    taken: set[str] = set()

    class Noting(Anything):
        def __getitem__(self, name: str) -> None:
            taken.add(name)

    hub: Any = Noting()
    functions_of(queue, hub, Settings())
    assert taken <= WORKSHOPS[queue].needs


@pytest.mark.parametrize(
    ("category", "retry", "attempt", "verdict"),
    [
        (Category.UNAVAILABLE, RetryClass.NEVER, 1, Verdict.TELL),
        (Category.UNAVAILABLE, RetryClass.WHEN_UNAVAILABLE, 2, Verdict.AGAIN),
        (Category.UNAVAILABLE, RetryClass.WHEN_UNAVAILABLE, 3, Verdict.BURY),
        (Category.UNKNOWN_OUTCOME, RetryClass.WHEN_UNAVAILABLE, 1, Verdict.BURY),
        (Category.UNKNOWN_OUTCOME, RetryClass.RECONCILE_FIRST, 1, Verdict.AGAIN),
        (Category.DEFECT, RetryClass.RECONCILE_FIRST, 1, Verdict.BURY),
        (Category.CORRUPT, RetryClass.NEVER, 1, Verdict.BURY),
        (Category.MISCONFIGURED, RetryClass.NEVER, 1, Verdict.BURY),
        *(
            (category, retry, 1, Verdict.TELL)
            for category in ("INVALID", "NOT_FOUND")
            for retry in RetryClass
        ),
    ],
)
def test_a_failure_is_judged(category: str, retry: RetryClass, attempt: int, verdict: Verdict) -> None:
    assert judge(Category(category), retry, attempt=attempt, tries=3) is verdict
