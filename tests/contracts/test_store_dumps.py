"""Backups of Weaviate and ArangoDB, against their doubles: what is brought back is what was there, of every tenant."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from core.errors.exceptions import Conflict, Misconfigured
from core.infrastructure.central_hub import open_hub
from core.model.records import SHELVES, RecordKind
from core.model.vectors import vector_of
from core.ports.similarity import Likeness
from core.settings import ArangoSettings, Settings, WeaviateSettings
from tests import topology_servers, weaviate_servers
from tests.backups import bring_back, empty_databases, fill, make, vault_in
from tests.engines import House, new_databases
from tests.record_keepers import body_of
from tests.topology_checks import DEPTH, far, filled, version

TENANTS = ("demo", "a tenant / that needs a hash")
COUNT = 450
"""More than two batches."""
KINDS = (RecordKind.INCIDENTS, RecordKind.MARKET_WINDOWS, RecordKind.SERVICES, RecordKind.FLOWS)


@pytest.fixture(scope="module")
def servers() -> Iterator[list[tuple[WeaviateSettings, ArangoSettings]]]:
    """Two of each: where it is, and where it shall be."""
    with (
        weaviate_servers.running_double() as first_weaviate,
        weaviate_servers.running_double() as second_weaviate,
        topology_servers.running_double() as first_arango,
        topology_servers.running_double() as second_arango,
    ):
        yield [(first_weaviate, first_arango), (second_weaviate, second_arango)]


def at(settings: Settings, servers: tuple[WeaviateSettings, ArangoSettings]) -> Settings:
    return msgspec.structs.replace(settings, weaviate=servers[0], arango=servers[1])


async def bring_forward(settings: Settings) -> None:
    await weaviate_servers.bring_forward(settings)
    await topology_servers.bring_forward(settings)


async def keep(settings: Settings) -> None:
    async with open_hub(settings, {"similarity", "topology"}) as hub:
        for tenant in TENANTS:
            bodies = {f"i{number:04}": body_of(RecordKind.INCIDENTS, number) for number in range(COUNT)}
            await hub["similarity"].load(RecordKind.INCIDENTS, tenant, bodies, version=version())
            one = body_of(RecordKind.MARKET_WINDOWS, 1)
            await hub["similarity"].create(RecordKind.MARKET_WINDOWS, tenant, "w", one, version=version())
            await filled(hub["topology"], tenant, "a>b b>c? c>a", *(f"s{number}" for number in range(COUNT)))


async def contents(settings: Settings) -> dict[str, list[object]]:
    found: dict[str, list[object]] = {}
    async with open_hub(settings, {"similarity", "topology"}) as hub:
        for tenant in TENANTS:
            for kind in KINDS:
                keeper = hub[SHELVES[kind].keeper]
                records = await keeper.page(kind, tenant, after=None, limit=10_000, where={})
                found[f"{kind} of {tenant}"] = list(records)
    return found


@pytest.fixture(scope="module")
def there(house: House, servers: list[tuple[WeaviateSettings, ArangoSettings]]) -> Settings:
    settings = at(new_databases(house), servers[0])

    async def prepare() -> None:
        await bring_forward(settings)
        await fill(settings)
        await keep(settings)

    asyncio.run(prepare())
    return settings


def test_what_is_brought_back_is_what_was_there(
    house: House, there: Settings, servers: list[tuple[WeaviateSettings, ArangoSettings]], tmp_path: Path
) -> None:
    vault = vault_in(tmp_path / "backup")
    make(there, vault)
    target = at(empty_databases(house, 13), servers[1])
    bring_back(target, vault)
    before, after = asyncio.run(contents(there)), asyncio.run(contents(target))
    assert {name: len(found) for name, found in before.items()} == {
        f"{kind} of {tenant}": count
        for tenant in TENANTS
        for kind, count in zip(KINDS, (COUNT, 1, COUNT + 3, 3), strict=True)
    }
    assert after == before
    asyncio.run(works(target))
    with pytest.raises(Conflict, match="is not empty"):
        bring_back(target, vault)
    bring_back(target, vault, replace=True)
    assert asyncio.run(contents(target)) == before


@pytest.mark.parametrize(("here", "code"), [(True, "STORE_NOT_IN_BACKUP"), (False, "STORE_NOT_SET_UP")])
def test_a_backup_of_other_stores_than_there_are_is_refused(
    house: House,
    there: Settings,
    servers: list[tuple[WeaviateSettings, ArangoSettings]],
    here: bool,
    code: str,
    tmp_path: Path,
) -> None:
    vault = vault_in(tmp_path / "backup")
    lone = new_databases(house)
    make(lone if here else there, vault)
    with pytest.raises(Misconfigured) as refused:
        bring_back(at(lone, servers[1]) if here else lone, vault)
    assert refused.value.code == code


async def works(settings: Settings) -> None:
    """Vectors and edges are there again, not the records alone."""
    async with open_hub(settings, {"similarity", "topology"}) as hub:
        for tenant in TENANTS:
            wanted = Likeness(vector=vector_of(body_of(RecordKind.MARKET_WINDOWS, 1)), limit=1)
            (match,) = await hub["similarity"].similar(RecordKind.MARKET_WINDOWS, tenant, wanted)
            assert match.score == pytest.approx(1, abs=1e-4)
            assert far(await hub["topology"].downstream(tenant, "a", depth_max=DEPTH)) == ["b 1", "c 2"]
