"""The suite of the topology notices: each of these breaks an adapter in one place, and some check fails for it."""

import secrets
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest

from core.errors.exceptions import TickgateError
from core.infrastructure.central_hub import Hub, open_hub
from core.ports.topology import Topology
from core.settings import ArangoSettings, Settings
from tests.engines import House, new_databases
from tests.mutations import Mutation, broken
from tests.topology_checks import CHECKS, FLOWS, Check, filled, ids
from tests.topology_servers import bring_forward, conflict, running_double

ARANGO = "core.adapters.arango."
ARANGO_MODULES = [f"{ARANGO}{name}" for name in ("documents", "records", "topology")]
POSTGRES = "core.adapters.postgres."
POSTGRES_MODULES = [f"{POSTGRES}{name}" for name in ("record_tables", "records", "topology")]


def arango(name: str, module: str, old: str, new: str) -> Mutation:
    return Mutation(name=name, module=f"{ARANGO}{module}", old=old, new=new)


def postgres(name: str, module: str, old: str, new: str) -> Mutation:
    return Mutation(name=name, module=f"{POSTGRES}{module}", old=old, new=new)


OF_ARANGO = [
    arango("direction-swapped", "topology", 'database, "OUTBOUND", tenant', 'database, "INBOUND", tenant'),
    arango("depth-ignored", "topology", '"depth": depth_max, "tenant"', '"depth": 32, "tenant"'),
    arango("unsorted", "topology", "return reached.depth, reached.service", "return 0, reached.service"),
    arango("tie-break-lost", "topology", "path.append(min(nearest))", "path.append(max(nearest))"),
    arango("path-not-begun", "topology", "path = [origin]\n", "path = [target]\n"),
    arango("required-ignored", "topology", "f.required == true", "f.required != null"),
    arango("all-degraded", "topology", "if reached.service not in failing", "if reached.service"),
    arango(
        "outage-not-followed",
        "topology",
        "frontier = [one for one in needing if one not in failing]",
        "frontier = []",
    ),
    arango("missing-service-accepted", "topology", "raise NotFound(", "NotFound("),
    arango("ends-not-looked-at", "records", "set(rows(database, _THERE", "ends or set(rows(database, _THERE"),
    arango("use-not-looked-at", "records", "if kind is RecordKind.SERVICES:", "if kind is None:"),
    arango(
        "use-looked-at-by-origin-only",
        "records",
        " OR f._to == @service)",
        " OR f._to == @service AND false)",
    ),
    arango("version-not-compared", "records", "(@expected == null OR", "(@expected == @expected OR"),
    arango(
        "tenant-forgotten-in-lists",
        "records",
        "FILTER d.tenant == @tenant AND d.order",
        "FILTER @tenant != null AND d.order",
    ),
    arango("tenants-share-keys", "documents", 'f"{len(tenant)}:{tenant}{record_id}"', 'f"{record_id}"'),
    arango("sorted-by-language", "documents", "record_id.encode().hex()", "record_id"),
    arango("filters-dropped", "records", "if name in where]", "if name in where and False]"),
    arango("creation-forgotten", "records", 'UNSET(document, "created_at_ms")', "document"),
    arango("half-a-load", "records", "transaction.abort_transaction()", "transaction.commit_transaction()"),
    arango("ends-of-an-update-kept", "documents", "if isinstance(body, Flow):", "if False:"),
    arango("conflicts-not-tried-again", "records", "attempt == TRIES", "attempt >= 1"),
    arango(
        "second-creation-overwrites", "records", "if e.error_code != UNIQUE:", "if e.error_code == UNIQUE:"
    ),
]
OF_POSTGRES = [
    postgres(
        "direction-swapped",
        "topology",
        '_walk("origin", "target"), tenant',
        '_walk("target", "origin"), tenant',
    ),
    postgres(
        "depth-ignored", "topology", "found.depth < $3 {condition}", "found.depth < 20 + $3 {condition}"
    ),
    postgres("start-told-too", "topology", "where id <> $2 group", "group"),
    postgres(
        "longest-way-told",
        "topology",
        "select id, min(depth) as depth from found where",
        "select id, max(depth) as depth from found where",
    ),
    postgres("first-look-is-the-last", "topology", "depth *= 2", "return"),
    postgres("deeper-is-not-looked", "topology", 'rows[-1]["depth"] < depth:', 'rows[-1]["depth"] <= depth:'),
    postgres(
        "longer-ways-are-none", "topology", 'all(row["depth"] < depth for', 'all(row["depth"] <= depth for'
    ),
    postgres("tie-break-lost", "topology", "min(flows.target)", "max(flows.target)"),
    postgres("required-ignored", "topology", '"and flows.required"', '""'),
    postgres("all-degraded", "topology", "if reached.service not in down", "if reached.service"),
    postgres(
        "missing-service-accepted", "topology", 'raise NotFound(f"there is no', 'NotFound(f"there is no'
    ),
    postgres(
        "version-not-compared",
        "record_tables",
        "($4::text is null or version = $4)",
        "($4::text is null or version = version)",
    ),
    postgres(
        "half-a-load", "topology", "((_SERVICES, services), (_FLOWS, flows))", "((_SERVICES, services),)"
    ),
    postgres("filters-dropped", "record_tables", "if name in where]", "if name in where and False]"),
    postgres(
        "creation-forgotten",
        "record_tables",
        "set version = excluded.version,",
        "set created_at = now() + interval '1 s', version = excluded.version,",
    ),
]


def conflicts_are_tried_again(double: ArangoSettings) -> Check:
    """Return a check of what only the double can be made to do."""

    async def what_meets_anothers_write_is_done_once_all_the_same(keeper: Topology, tenant: str) -> None:
        conflict(double, 2)
        try:
            await filled(keeper, tenant, "a>b")
            assert await ids(keeper, tenant, FLOWS) == ["f0000"]
        finally:
            conflict(double, 0)

    return what_meets_anothers_write_is_done_once_all_the_same


@pytest.fixture(scope="module")
def double() -> Iterator[ArangoSettings]:
    with running_double() as settings:
        yield settings


@pytest.fixture(scope="module")
def databases(house: House) -> Settings:
    return new_databases(house)


@pytest.fixture
async def hub(databases: Settings, double: ArangoSettings) -> AsyncIterator[Hub]:
    settings = msgspec.structs.replace(databases, arango=double)
    await bring_forward(settings)
    async with open_hub(settings, {"postgres", "topology"}) as hub:
        yield hub


async def first_failure(keeper: Topology, checks: list[Check]) -> str:
    """Return the name of the first check that a keeper fails, nothing when it passes all."""
    for check in checks:
        try:
            await check(keeper, f"t{secrets.token_hex(6)}")
        except (AssertionError, pytest.fail.Exception, TickgateError, LookupError, TypeError, ValueError):
            return check.__name__
    return ""


def test_every_mutation_has_a_name_of_its_own() -> None:
    assert len({mutation.name for mutation in OF_ARANGO}) == len(OF_ARANGO)
    assert len({mutation.name for mutation in OF_POSTGRES}) == len(OF_POSTGRES)


async def test_the_whole_adapter_passes(hub: Hub, double: ArangoSettings) -> None:
    assert await first_failure(hub["topology"], [*CHECKS, conflicts_are_tried_again(double)]) == ""


@pytest.mark.parametrize("mutation", OF_ARANGO, ids=lambda mutation: mutation.name)
async def test_a_broken_arango_adapter_fails(
    hub: Hub, double: ArangoSettings, monkeypatch: pytest.MonkeyPatch, mutation: Mutation
) -> None:
    module = broken(monkeypatch, ARANGO_MODULES, mutation)
    checks = [*CHECKS, conflicts_are_tried_again(double)]
    assert await first_failure(module.ArangoTopology(hub["arango"]), checks)


@pytest.mark.parametrize("mutation", OF_POSTGRES, ids=lambda mutation: mutation.name)
async def test_a_broken_postgres_adapter_fails(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, mutation: Mutation
) -> None:
    module = broken(monkeypatch, POSTGRES_MODULES, mutation)
    assert await first_failure(module.PostgresTopology(hub["postgres"]), CHECKS)
