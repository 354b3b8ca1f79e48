"""Processes that stand still (SIGSTOP) and go on, also beyond a lease that somebody else has taken meanwhile."""

import signal

import pytest

from tests.bridges import build_bridge
from tests.faults.conftest import Worlds
from tests.faults.processes import Child
from tests.faults.world import bridge_is_ready

pytestmark = pytest.mark.timeout(90)

STOPS = 8
STOPPED = ("bridge", "connector", "clickhouse", "postgres", "valkey")
HANDOVERS = 2
LEASE_S = 1.2


def test_processes_that_stand_still_lose_and_double_nothing(worlds: Worlds) -> None:
    with worlds.running(heartbeat_ms=500, insert_timeout_s=0.5, lease_ttl_s=LEASE_S) as world:
        for _ in range(STOPS):
            names = world.chance.sample(STOPPED, world.chance.choice([1, 1, 2]))
            for name in names:
                world.processes[name].send(signal.SIGSTOP)
            world.let_run(world.chance.uniform(0.05, 0.8))
            for name in names:
                world.processes[name].send(signal.SIGCONT)
            world.let_run(world.chance.uniform(0, 0.3))
        world.assert_whole()


def test_a_bridge_that_wakes_after_its_lease_was_taken_writes_nothing(worlds: Worlds) -> None:
    """Two bridges; one stands still in the middle of its work, the other takes over, the first goes on."""
    options = {"lease_ttl_s": LEASE_S, "heartbeat_ms": 500}
    with worlds.running(proxied_bridge=True, **options) as world:
        assert world.dialled is not None
        directory = world.directory / "second"
        directory.mkdir()
        second = build_bridge(world.settings, directory, **options)
        world.children["second"] = Child("second", ["bridge"], second.environment, directory / "bridge.log")
        world.wait_for(lambda: bridge_is_ready(second.port), "the second bridge being ready")
        ports = {"bridge": world.dialled.target_port, "second": second.port}
        active, waiting = "bridge", "second"
        for _ in range(HANDOVERS):
            world.wait_flowing()
            world.let_run(world.chance.uniform(0, 0.3))
            world.children[active].send(signal.SIGSTOP)
            world.dialled.target_port = ports[waiting]
            world.dialled.cut()
            world.wait_flowing()
            world.children[active].send(signal.SIGCONT)
            world.let_run(world.chance.uniform(0.1, 0.5))
            active, waiting = waiting, active
        world.assert_whole()
