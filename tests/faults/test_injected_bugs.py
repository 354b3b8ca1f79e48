"""The suite finds the bugs it is there for: a bridge broken on purpose does not get past the judge."""

from collections.abc import Callable

import pytest

from tests.faults import scenarios
from tests.faults.conftest import Worlds
from tests.faults.world import World

pytestmark = pytest.mark.timeout(180)

BUGS: dict[str, tuple[Callable[[World], None], str]] = {
    "acknowledge-before-insert": (scenarios.die_with_an_insert_under_way, "acknowledged ticks were missing"),
    "skip-the-drain": (scenarios.let_an_insert_arrive_late, "rows doubled"),
    "use-deduplication-tokens": (scenarios.kill_the_store_behind_its_deduplication_log, "rows lost"),
}
"""What is done, and what the judge must say."""


@pytest.mark.parametrize("bug", BUGS)
def test_an_injected_bug_is_found(worlds: Worlds, bug: str) -> None:
    scenario, verdict = BUGS[bug]
    with worlds.running(bug=bug, proxied_store=True) as world:
        scenario(world)
        violations = world.finish()
        assert any(verdict in violation for violation in violations), f"{violations}\n{world.report()}"


@pytest.mark.parametrize(
    "scenario",
    [
        scenarios.die_with_an_insert_under_way,
        scenarios.let_an_insert_arrive_late,
        scenarios.kill_the_store_inside_inserts,
    ],
)
def test_the_real_bridge_holds(worlds: Worlds, scenario: Callable[[World], None]) -> None:
    with worlds.running(proxied_store=True) as world:
        scenario(world)
        world.assert_whole()
