"""kill -9, again and again, at random moments, of everything on the ticks' way. Nothing is lost, doubled or moved."""

import os

import pytest

from tests.faults.conftest import Worlds
from tests.faults.tape import SYMBOLS
from tests.faults.world import World

KILLS = int(os.environ.get("TICKGATE_TEST_KILLS", "100"))
ROUNDS = 2
IN_FLOW = 0.15
"""Of all kills, those that wait for ticks to be stored again first; the others come sooner."""
VICTIMS = ("bridge", "bridge", "connector", "connector", "clickhouse", "clickhouse", "worker")


@pytest.mark.timeout(60 + 3 * KILLS)
@pytest.mark.parametrize("number", range(ROUNDS))
def test_random_kills_under_load_lose_and_double_nothing(worlds: Worlds, number: int) -> None:
    with worlds.running(worker=True, proxied_store=True) as world:
        for _ in range(KILLS // ROUNDS):
            _let_run(world)
            victim = world.processes[world.chance.choice(VICTIMS)]
            victim.kill(group=world.chance.random() < 0.5, down_s=world.chance.uniform(0, 0.2))
        world.assert_whole()
        assert world.read_by_a_worker() == set(SYMBOLS)


def _let_run(world: World) -> None:
    """Until ticks are being stored again, or only for a moment: what is just starting is killed too."""
    if world.chance.random() < IN_FLOW:
        world.wait_flowing()
        world.let_run(world.chance.uniform(0, 0.3))
    else:
        world.let_run(world.chance.uniform(0.05, 0.4))
