"""kill -9, again and again, at random moments, of everything on the ticks' way. Nothing is lost, doubled or moved."""

import os

import pytest

from tests.faults.conftest import Worlds
from tests.faults.world import World

KILLS = int(os.environ.get("TICKGATE_TEST_KILLS", "100"))
ROUNDS = 2
IN_FLOW = 0.25
INSERT_BYTES = 20_000
VICTIMS = ("bridge", "connector", "clickhouse", "worker")


@pytest.mark.timeout(60 + 3 * KILLS)
@pytest.mark.parametrize("number", range(ROUNDS))
def test_random_kills_under_load_lose_and_double_nothing(worlds: Worlds, number: int) -> None:
    with worlds.running(worker=True, proxied_store=True) as world:
        for _ in range(KILLS // ROUNDS):
            _let_run(world)
            victim = world.processes[world.chance.choice(VICTIMS)]
            victim.kill(group=world.chance.random() < 0.5, down_s=world.chance.uniform(0, 0.2))
        world.assert_whole()


def _let_run(world: World) -> None:
    """Until ticks are being stored again, or only for a moment: what is just starting is killed too."""
    assert world.stored is not None
    stored = world.stored
    if world.chance.random() < IN_FLOW:
        before = stored.bytes_up
        world.wait_for(lambda: stored.bytes_up > before + INSERT_BYTES, "ticks being stored")
        world.let_run(world.chance.uniform(0, 0.3))
    else:
        world.let_run(world.chance.uniform(0.1, 0.6))
