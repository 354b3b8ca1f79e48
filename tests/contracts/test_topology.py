"""One suite for everything that keeps the topology, and random graphs held against a model walked by hand."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from core.infrastructure.central_hub import open_hub
from core.model import house_topology
from core.model.records import Flow
from core.ports.topology import Topology
from core.settings import Settings
from tests.engines import House, new_databases
from tests.topology_checks import CHECKS, DEPTH, Check, Model, far, services_of, version
from tests.topology_servers import PLACES, Place

NAMES = "abcdeXYZ"
GRAPHS = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES), st.booleans()).filter(
        lambda one: one[0] != one[1]
    ),
    max_size=18,
)


@pytest.fixture(scope="module")
def shared(house: House) -> Settings:
    return new_databases(house)


@pytest.fixture(params=PLACES, ids=lambda place: place.name)
async def keeper(request: pytest.FixtureRequest, shared: Settings) -> AsyncIterator[Topology]:
    place: Place = request.param
    async with place.at(shared) as settings, open_hub(settings, {"topology"}) as hub:
        yield hub["topology"]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_a_keeper_of_the_topology(keeper: Topology, check: Check) -> None:
    await check(keeper, f"t{secrets.token_hex(6)}")


async def test_our_own_topology_says_what_an_outage_does(keeper: Topology) -> None:
    tenant = f"t{secrets.token_hex(6)}"
    await keeper.load(tenant, house_topology.SERVICES, house_topology.FLOWS, version=version())
    queue = await keeper.impact(tenant, "queue")
    assert far(queue.failing) == ["gateway 1", "worker-chain 1", "worker-database 1", "worker-trading 1"]
    assert far(queue.degraded) == ["bridge 1", "connector 2"]
    ticks = await keeper.impact(tenant, "ticks")
    assert (far(ticks.failing), far(ticks.degraded)) == (["bridge 1"], ["worker-database 1", "connector 2"])


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
def test_any_graph_is_walked_as_by_hand(shared: Settings, place: Place) -> None:
    @hypothesis_settings(
        max_examples=25,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
        derandomize=True,
    )
    @given(edges=GRAPHS)
    def walk(edges: list[tuple[str, str, bool]]) -> None:
        flows = {
            f"f{number}": Flow(origin=origin, target=target, sort="calls", required=required)
            for number, (origin, target, required) in enumerate(edges)
        }
        asyncio.run(compare(flows))

    async def compare(flows: dict[str, Flow]) -> None:
        tenant, model = f"t{secrets.token_hex(6)}", Model(flows)
        async with place.at(shared) as settings, open_hub(settings, {"topology"}) as hub:
            keeper: Topology = hub["topology"]
            await keeper.load(tenant, services_of(flows, *NAMES), flows, version=version())
            for name in "aX":
                down = await keeper.downstream(tenant, name, depth_max=DEPTH)
                assert far(down) == model.reached(name, "origin", "target")
                up = await keeper.upstream(tenant, name, depth_max=DEPTH)
                assert far(up) == model.reached(name, "target", "origin")
                impact = await keeper.impact(tenant, name)
                assert far(impact.failing) == model.reached(name, "target", "origin", required=True)
                assert sorted(far([*impact.failing, *impact.degraded]), key=name_of) == sorted(
                    {name_of(one): one for one in [*far(up), *far(impact.failing)]}.values(), key=name_of
                )
            for origin, target in (("a", "b"), ("X", "e"), ("c", "Z")):
                assert list(await keeper.shortest_path(tenant, origin, target)) == list(
                    model.path(origin, target)
                )

    walk()


def name_of(text: str) -> str:
    return text.partition(" ")[0]
