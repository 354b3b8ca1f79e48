"""Cuts, half-open connections, one-way loss, delay and thin pipes on both links of the tick path."""

import pytest

from tests.faults.conftest import Worlds
from tests.faults.proxy import Proxy, Trap, Weather
from tests.faults.scenarios import INSERT
from tests.faults.world import World

pytestmark = pytest.mark.timeout(90)

EPISODES = 8
REPLIES_LOST = 4
WEATHERS = (
    Weather(latency_s=0.03, jitter_s=0.05),
    Weather(slice_bytes=7, latency_s=0.0001),
    Weather(bytes_per_s=200_000),
    Weather(frozen=True),
)


def _trouble(world: World, proxy: Proxy) -> None:
    """One episode of what can happen to a link."""
    match world.chance.randrange(5):
        case 0:
            proxy.cut(reset=True)
        case 1:
            proxy.cut(reset=False)
        case 2:
            proxy.silence(up=True, down=True)
        case 3:
            up = world.chance.random() < 0.5
            proxy.silence(up=up, down=not up)
        case _:
            proxy.weather = world.chance.choice(WEATHERS)
    world.let_run(world.chance.uniform(0.05, 0.6))
    proxy.weather = Weather()


def test_trouble_between_connector_and_bridge(worlds: Worlds) -> None:
    with worlds.running(proxied_bridge=True, heartbeat_ms=300) as world:
        assert world.dialled is not None
        for _ in range(EPISODES):
            _trouble(world, world.dialled)
        world.assert_whole()
        assert world.dialled.connections > 1


def test_trouble_between_bridge_and_store(worlds: Worlds) -> None:
    with worlds.running(proxied_store=True, insert_timeout_s=0.5) as world:
        assert world.stored is not None
        for _ in range(EPISODES):
            _trouble(world, world.stored)
        world.assert_whole()


def test_replies_lost_after_the_insert_double_nothing(worlds: Worlds) -> None:
    with worlds.running(proxied_store=True) as world:
        assert world.stored is not None
        for _ in range(REPLIES_LOST):
            trap = world.stored.set_trap(Trap(INSERT, lose_reply=True))
            world.wait_for(trap.sprung.is_set, "a reply being lost")
            world.let_run(world.chance.uniform(0, 0.3))
        world.assert_whole()


def test_a_peer_that_resets_who_dials_is_dialled_again_soon(worlds: Worlds) -> None:
    with worlds.running(proxied_bridge=True) as world:
        assert world.dialled is not None
        world.dialled.weather.refusing = True
        world.dialled.cut()
        before = world.dialled.connections
        world.wait_for(lambda: world.dialled.connections > before, "a refused dial")
        world.dialled.weather.refusing = False
        before = world.dialled.connections
        world.wait_for(lambda: world.dialled.connections > before, "another dial", 2.0)
