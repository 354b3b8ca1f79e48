"""Whatever happens to orders in which order: none executes twice, each ends or is known, and nothing is lost or hidden.

And the machine that says so is no ornament: bugs put into the product on purpose do not get past it.
"""

import os
from collections.abc import Iterator
from typing import Final

import pytest
import structlog
from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import FlakyFailure
from hypothesis.stateful import run_state_machine_as_test

from core.errors.exceptions import Defect
from core.trading import settling
from tests.engines import House, new_databases
from tests.faults.order_bugs import BUGS
from tests.faults.order_machine import OrderMachine
from tests.faults.order_truth import BrokenPromise
from tests.faults.order_world import Ground

EXAMPLES: Final = int(os.environ.get("TICKGATE_TEST_ORDER_EXAMPLES", "60"))
BUG_EXAMPLES_MAX: Final = 500
"""Most bugs are found within ten."""
STEPS: Final = 12


@pytest.fixture(scope="module", autouse=True)
def ground(house: House) -> Iterator[Ground]:
    """What settling logs is kept: its logger keeps what it has first met."""
    opened = Ground(new_databases(house))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settling, "log", structlog.wrap_logger(None, [opened.alerts], structlog.BoundLogger))
        OrderMachine.ground = opened
        yield opened
    opened.close()


def run(examples: int) -> None:
    OrderMachine.broken.clear()
    run_state_machine_as_test(
        OrderMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            phases=(Phase.explicit, Phase.generate),
            print_blob=False,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.timeout(400)
def test_no_order_of_events_breaks_an_order() -> None:
    run(EXAMPLES)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("bug", BUGS)
def test_the_machine_finds_an_injected_bug(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = BUGS[bug]
    monkeypatch.setattr(found.place, found.name, found.broken)
    with pytest.raises((BrokenPromise, Defect, FlakyFailure)):
        run(BUG_EXAMPLES_MAX)
    assert any(words in problem for problem in OrderMachine.broken for words in found.words), (
        OrderMachine.broken
    )
