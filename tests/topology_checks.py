"""What every keeper of the topology must do, as functions, so that a broken keeper can be shown to fail them."""

import asyncio
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import pytest

from core.errors.exceptions import Conflict, NotFound, TickgateError
from core.model.records import Flow, RecordKind, Service
from core.ports.topology import Impact, Reached, Topology

SERVICES, FLOWS = RecordKind.SERVICES, RecordKind.FLOWS
Check = Callable[[Topology, str], Awaitable[None]]
CHECKS: list[Check] = []
DEPTH = 32
HOUSE = (
    # who uses, what is used; ? where it does without
    "gateway>redis gateway>postgres worker>redis worker>postgres worker>clickhouse bridge>clickhouse bridge>postgres"
    " bridge>redis? connector>bridge dashboard>gateway worker>weaviate? worker>arango? report>worker"
)


def check(function: Check) -> Check:
    CHECKS.append(function)
    return function


def version() -> str:
    return secrets.token_hex(16)


def service(title: str = "a service", **rest: Any) -> Service:
    return Service(title=title, sort=rest.pop("sort", "process"), **rest)


def flows_of(text: str) -> dict[str, Flow]:
    """Return the flows of a line as in HOUSE, each with an id of its own."""
    flows = {}
    for number, word in enumerate(text.split()):
        origin, target = word.removesuffix("?").split(">")
        flows[f"f{number:04}"] = Flow(
            origin=origin, target=target, sort="calls", required=not word.endswith("?")
        )
    return flows


def services_of(flows: Mapping[str, Flow], *more: str) -> dict[str, Service]:
    ends = [end for flow in flows.values() for end in (flow.origin, flow.target)]
    return {name: service(f"the {name}") for name in (*ends, *more)}


async def filled(keeper: Topology, tenant: str, text: str = HOUSE, *more: str) -> None:
    flows = flows_of(text)
    await keeper.load(tenant, services_of(flows, *more), flows, version=version())


def far(found: Iterable[Reached]) -> list[str]:
    return [f"{reached.service} {reached.depth}" for reached in found]


async def code_of(asked: Awaitable[Any], kind: type[TickgateError]) -> str:
    with pytest.raises(kind) as refused:
        await asked
    return str(refused.value.code)


@check
async def a_flow_is_read_as_it_was_written(keeper: Topology, tenant: str) -> None:
    await filled(keeper, tenant, "a>b b>c", "One$#.+!@^=-")
    for target, sort, required in (("b", "writes", True), ("One$#.+!@^=-", "consumes", False)):
        body = Flow(origin="c", target=target, sort=sort, required=required)  # type: ignore[arg-type]
        made = await keeper.create(FLOWS, tenant, f"x-{target}", body, version=version())
        read = await keeper.read(FLOWS, tenant, f"x-{target}")
        assert read == made
        assert read.body == body
    assert far(await keeper.downstream(tenant, "b", depth_max=DEPTH)) == ["c 1", "One$#.+!@^=- 2"]


@check
async def a_flow_needs_both_its_services(keeper: Topology, tenant: str) -> None:
    await filled(keeper, tenant, "a>b")
    for origin, target in (("a", "nothing"), ("nothing", "b")):
        body = Flow(origin=origin, target=target, sort="calls")
        asked = keeper.create(FLOWS, tenant, "new", body, version=version())
        assert await code_of(asked, NotFound) == "SERVICE_NOT_FOUND"
        asked = keeper.update(FLOWS, tenant, "f0000", body, expected=None, version=version())
        assert await code_of(asked, NotFound) == "SERVICE_NOT_FOUND"
        loaded = keeper.load(tenant, {"c": service()}, {"new": body}, version=version())
        assert await code_of(loaded, NotFound) == "SERVICE_NOT_FOUND"
    assert await ids(keeper, tenant, FLOWS) == ["f0000"]
    assert await ids(keeper, tenant, SERVICES) == ["a", "b"], "what was loaded with it is not kept either"
    assert far(await keeper.downstream(tenant, "a", depth_max=DEPTH)) == ["b 1"]


async def ids(keeper: Topology, tenant: str, kind: RecordKind, **where: str) -> list[str]:
    return [record.id for record in await keeper.page(kind, tenant, after=None, limit=100, where=where)]


@check
async def a_service_in_use_is_not_deleted(keeper: Topology, tenant: str) -> None:
    await filled(keeper, tenant, "a>b")
    for name in ("a", "b"):
        asked = keeper.delete(SERVICES, tenant, name, expected=None)
        assert await code_of(asked, Conflict) == "RECORD_IN_USE"
    await keeper.delete(FLOWS, tenant, "f0000", expected=None)
    await keeper.delete(SERVICES, tenant, "a", expected=None)
    assert await ids(keeper, tenant, SERVICES) == ["b"]


@check
async def another_version_is_neither_changed_nor_deleted(keeper: Topology, tenant: str) -> None:
    await filled(keeper, tenant, "a>b b>c")
    changed = Flow(origin="a", target="c", sort="reads")
    for kind, name, body in ((FLOWS, "f0000", changed), (SERVICES, "a", service("changed"))):
        before = await keeper.read(kind, tenant, name)
        asked = keeper.update(kind, tenant, name, body, expected="0" * 32, version=version())
        assert await code_of(asked, Conflict) == "VERSION_MISMATCH"
        asked_away = keeper.delete(kind, tenant, name, expected="0" * 32)
        assert await code_of(asked_away, Conflict) in {"VERSION_MISMATCH", "RECORD_IN_USE"}
        assert await keeper.read(kind, tenant, name) == before


@check
async def a_write_that_is_asked_for_again_changes_nothing(keeper: Topology, tenant: str) -> None:
    await filled(keeper, tenant, "a>b b>c")
    body = Flow(origin="a", target="c", sort="calls")
    made = await keeper.create(FLOWS, tenant, "new", body, version="a" * 32)
    assert await keeper.create(FLOWS, tenant, "new", body, version="a" * 32) == made
    changed = Flow(origin="c", target="a", sort="reads", required=False)
    second = await keeper.update(FLOWS, tenant, "new", changed, expected="a" * 32, version="b" * 32)
    again = await keeper.update(FLOWS, tenant, "new", changed, expected="a" * 32, version="b" * 32)
    assert again == second == await keeper.read(FLOWS, tenant, "new")
    assert second.created_at_ms == made.created_at_ms


@check
async def a_changed_flow_leads_where_it_says_now(keeper: Topology, tenant: str) -> None:
    await filled(keeper, tenant, "a>b b>c", "d")
    changed = Flow(origin="a", target="d", sort="calls")
    await keeper.update(FLOWS, tenant, "f0000", changed, expected=None, version=version())
    assert far(await keeper.downstream(tenant, "a", depth_max=DEPTH)) == ["d 1"]
    assert far(await keeper.upstream(tenant, "b", depth_max=DEPTH)) == []


@check
async def of_many_who_change_a_version_at_once_one_succeeds(keeper: Topology, tenant: str) -> None:
    await filled(keeper, tenant, "a>b")
    first = (await keeper.read(FLOWS, tenant, "f0000")).version
    body = Flow(origin="b", target="a", sort="calls")
    changes = (
        keeper.update(FLOWS, tenant, "f0000", body, expected=first, version=version()) for _ in range(6)
    )
    done = await asyncio.gather(*changes, return_exceptions=True)
    changed = [one for one in done if not isinstance(one, Conflict)]
    assert changed == [await keeper.read(FLOWS, tenant, "f0000")]


@check
async def a_list_is_filtered_by_its_ends(keeper: Topology, tenant: str) -> None:
    await filled(keeper, tenant, "a>b a>c c>b")
    assert await ids(keeper, tenant, FLOWS, origin="a") == ["f0000", "f0001"]
    assert await ids(keeper, tenant, FLOWS, target="b") == ["f0000", "f0002"]
    assert await ids(keeper, tenant, FLOWS, origin="c", target="b") == ["f0002"]
    assert await ids(keeper, tenant, SERVICES, sort="store") == []
    assert await ids(keeper, tenant, SERVICES, sort="process") == ["a", "b", "c"]


@check
async def a_list_is_in_the_order_of_code_points(keeper: Topology, tenant: str) -> None:
    names = sorted(["a", "B", "Z", "aa", "z9", "10", "9", "_", "$x", "b-1", "b.1"])
    await keeper.load(tenant, {name: service() for name in names}, {}, version=version())
    assert await ids(keeper, tenant, SERVICES) == names
    after = await keeper.page(SERVICES, tenant, after="Z", limit=3, where={})
    assert [record.id for record in after] == names[names.index("Z") + 1 :][:3]


@check
async def what_is_loaded_again_takes_the_place_of_what_was_there(keeper: Topology, tenant: str) -> None:
    await filled(keeper, tenant, "a>b b>c")
    before = await keeper.read(SERVICES, tenant, "a")
    turned = {"f0000": Flow(origin="b", target="a", sort="reads")}
    await keeper.load(tenant, {"a": service("new")}, turned, version="e" * 32)
    after = await keeper.read(SERVICES, tenant, "a")
    assert (after.body, after.version, after.created_at_ms) == (
        service("new"),
        "e" * 32,
        before.created_at_ms,
    )
    assert far(await keeper.downstream(tenant, "b", depth_max=DEPTH)) == ["a 1", "c 1"]
    assert await ids(keeper, tenant, FLOWS) == ["f0000", "f0001"]


@check
async def what_is_reached_is_told_with_its_depth(keeper: Topology, tenant: str) -> None:
    await filled(keeper, tenant)
    assert far(await keeper.downstream(tenant, "connector", depth_max=DEPTH)) == [
        "bridge 1",
        "clickhouse 2",
        "postgres 2",
        "redis 2",
    ]
    assert far(await keeper.upstream(tenant, "redis", depth_max=DEPTH)) == [
        "bridge 1",
        "gateway 1",
        "worker 1",
        "connector 2",
        "dashboard 2",
        "report 2",
    ]
    assert far(await keeper.downstream(tenant, "postgres", depth_max=DEPTH)) == []


@check
async def nothing_beyond_the_depth_is_told(keeper: Topology, tenant: str) -> None:
    await filled(keeper, tenant, "a>b b>c c>d")
    assert far(await keeper.downstream(tenant, "a", depth_max=2)) == ["b 1", "c 2"]
    assert far(await keeper.upstream(tenant, "d", depth_max=1)) == ["c 1"]


@check
async def a_long_chain_is_followed_to_its_end(keeper: Topology, tenant: str) -> None:
    names = [f"n{number:02}" for number in range(41)]
    await filled(keeper, tenant, " ".join(f"{near}>{far}" for near, far in pairwise(names)))
    reached = [f"{name} {depth}" for depth, name in enumerate(names)]
    assert far(await keeper.downstream(tenant, "n00", depth_max=DEPTH)) == reached[1 : DEPTH + 1]
    assert far((await keeper.impact(tenant, "n40")).failing)[-1] == "n00 40"
    for length in (7, 8, 9, 16, 17, 40):
        assert list(await keeper.shortest_path(tenant, "n00", names[length])) == names[: length + 1]
    assert list(await keeper.shortest_path(tenant, "n40", "n00")) == []


@check
async def a_circle_is_gone_round_once(keeper: Topology, tenant: str) -> None:
    await filled(keeper, tenant, "a>b b>c c>a c>d d>c")
    assert far(await keeper.downstream(tenant, "a", depth_max=DEPTH)) == ["b 1", "c 2", "d 3"]
    assert far(await keeper.upstream(tenant, "a", depth_max=DEPTH)) == ["c 1", "b 2", "d 2"]


@check
async def of_two_ways_the_shorter_counts(keeper: Topology, tenant: str) -> None:
    await filled(keeper, tenant, "a>b b>c c>d a>d")
    assert far(await keeper.downstream(tenant, "a", depth_max=DEPTH)) == ["b 1", "d 1", "c 2"]


@check
async def the_shortest_path_has_both_its_ends(keeper: Topology, tenant: str) -> None:
    await filled(keeper, tenant, "a>b b>c c>d a>x x>d d>a", "alone")
    assert list(await keeper.shortest_path(tenant, "a", "d")) == ["a", "x", "d"]
    assert list(await keeper.shortest_path(tenant, "d", "x")) == ["d", "a", "x"]
    assert list(await keeper.shortest_path(tenant, "a", "a")) == ["a"]
    assert list(await keeper.shortest_path(tenant, "a", "alone")) == []
    assert list(await keeper.shortest_path(tenant, "alone", "a")) == []


@check
async def of_shortest_paths_the_first_by_its_ids_is_told(keeper: Topology, tenant: str) -> None:
    await filled(keeper, tenant, "s>m s>B s>a m>t1 B>t2 a>t3 t1>t t2>t t3>t a>t2 B>t3")
    assert list(await keeper.shortest_path(tenant, "s", "t")) == ["s", "B", "t2", "t"]


@check
async def an_outage_fails_what_needs_it_and_degrades_the_rest(keeper: Topology, tenant: str) -> None:
    await filled(keeper, tenant)
    redis = await keeper.impact(tenant, "redis")
    assert far(redis.failing) == ["gateway 1", "worker 1", "dashboard 2", "report 2"]
    assert far(redis.degraded) == ["bridge 1", "connector 2"]
    weaviate = await keeper.impact(tenant, "weaviate")
    assert (far(weaviate.failing), far(weaviate.degraded)) == ([], ["worker 1", "report 2"])
    assert await keeper.impact(tenant, "report") == Impact(failing=[], degraded=[])


@check
async def a_required_way_counts_beside_one_that_is_not(keeper: Topology, tenant: str) -> None:
    await filled(keeper, tenant, "a>b? a>c c>b d>a? e>d")
    impact = await keeper.impact(tenant, "b")
    assert far(impact.failing) == ["c 1", "a 2"]
    assert far(impact.degraded) == ["d 2", "e 3"]


@check
async def a_service_that_is_not_there_is_not_found(keeper: Topology, tenant: str) -> None:
    await filled(keeper, tenant, "a>b")
    questions: tuple[Callable[[], Awaitable[Any]], ...] = (
        lambda: keeper.downstream(tenant, "nothing", depth_max=DEPTH),
        lambda: keeper.upstream(tenant, "nothing", depth_max=DEPTH),
        lambda: keeper.shortest_path(tenant, "a", "nothing"),
        lambda: keeper.shortest_path(tenant, "nothing", "a"),
        lambda: keeper.impact(tenant, "nothing"),
    )
    for ask in questions:
        assert await code_of(ask(), NotFound) == "RECORD_NOT_FOUND"


@check
async def a_tenant_neither_sees_nor_reaches_anothers(keeper: Topology, tenant: str) -> None:
    other = f"{tenant}x"
    await filled(keeper, tenant, "a>b b>c")
    await filled(keeper, other, "a>z z>b b>q")
    assert far(await keeper.downstream(tenant, "a", depth_max=DEPTH)) == ["b 1", "c 2"]
    assert far(await keeper.upstream(other, "b", depth_max=DEPTH)) == ["z 1", "a 2"]
    assert list(await keeper.shortest_path(other, "a", "b")) == ["a", "z", "b"]
    assert await ids(keeper, tenant, SERVICES) == ["a", "b", "c"]
    assert await ids(keeper, other, FLOWS) == ["f0000", "f0001", "f0002"]
    body = Flow(origin="a", target="q", sort="calls")
    asked = keeper.create(FLOWS, tenant, "new", body, version=version())
    assert await code_of(asked, NotFound) == "SERVICE_NOT_FOUND"
    await keeper.delete(FLOWS, tenant, "f0000", expected=None)
    assert await ids(keeper, other, FLOWS) == ["f0000", "f0001", "f0002"]


class Model:
    """A graph as a dict, walked by hand: what the keepers are held against."""

    def __init__(self, flows: Mapping[str, Flow]) -> None:
        self.flows = list(flows.values())

    def reached(self, start: str, near: str, far_end: str, *, required: bool = False) -> list[str]:
        depths, waiting = {start: 0}, deque([start])
        while waiting:
            at = waiting.popleft()
            for flow in self.flows:
                there = getattr(flow, far_end)
                if getattr(flow, near) == at and there not in depths and (flow.required or not required):
                    depths[there] = depths[at] + 1
                    waiting.append(there)
        del depths[start]
        return [f"{name} {depth}" for name, depth in sorted(depths.items(), key=lambda one: (one[1], one[0]))]

    def path(self, origin: str, target: str) -> Sequence[str]:
        paths = [[origin]]
        seen = {origin}
        while paths:
            ended = sorted(path for path in paths if path[-1] == target)
            if ended:
                return ended[0]
            further = [
                [*path, flow.target]
                for path in paths
                for flow in self.flows
                if flow.origin == path[-1] and flow.target not in seen
            ]
            seen |= {path[-1] for path in further}
            best: dict[str, list[str]] = {}
            for path in sorted(further):
                best.setdefault(path[-1], path)
            paths = list(best.values())
        return []
