"""A PostgreSQL without pgvector: the ledger comes up all the same, and only what needs nearness is missing."""

import secrets
from collections.abc import AsyncIterator
from importlib.resources import files

import pytest

from core.errors.exceptions import Unavailable
from core.infrastructure.central_hub import Hub, open_hub
from core.model.vectors import vector_of
from core.ports.similarity import Likeness
from core.settings import Settings
from tests.engines import House, new_databases
from tests.similarity_checks import INCIDENTS, LIBRARY

STEP = files("core.adapters.postgres").joinpath("migrations", "0009_similarity.sql").read_text()


@pytest.fixture(scope="module")
def settings(house: House) -> Settings:
    return new_databases(house)


@pytest.fixture
async def hub(settings: Settings) -> AsyncIterator[Hub]:
    """Migrate as somebody who may not install it."""
    async with open_hub(settings, {"postgres", "similarity"}) as hub:
        async with hub["postgres"].acquire() as connection, connection.transaction():
            role = f"nobody_{secrets.token_hex(4)}"
            await connection.execute("drop extension if exists vector cascade")
            await connection.execute("drop table if exists incidents, market_windows")
            await connection.execute(f"create role {role}; grant create on schema public to {role}")
            await connection.execute(f"set local role {role}")
            await connection.execute(STEP)
        yield hub
        async with hub["postgres"].acquire() as connection:
            await connection.execute(f"drop owned by {role} cascade; drop role {role}")


async def test_the_migration_succeeds_and_records_are_kept_and_found_by_words(hub: Hub) -> None:
    keeper = hub["similarity"]
    await keeper.load(INCIDENTS, "demo", LIBRARY, version="a" * 32)
    assert (await keeper.read(INCIDENTS, "demo", "lease")).body == LIBRARY["lease"]
    (found,) = await keeper.similar(INCIDENTS, "demo", Likeness(text="lease"))
    assert found.record.id == "lease"


async def test_what_needs_nearness_says_what_is_missing(hub: Hub) -> None:
    with pytest.raises(Unavailable) as refused:
        await hub["similarity"].similar(INCIDENTS, "demo", Likeness(vector=vector_of(LIBRARY["lease"])))
    assert refused.value.code == "PGVECTOR_MISSING"
    await hub["similarity"].ping()


async def test_once_it_is_installed_nearness_works(hub: Hub) -> None:
    keeper = hub["similarity"]
    await keeper.load(INCIDENTS, "demo", LIBRARY, version="a" * 32)
    async with hub["postgres"].acquire() as connection:
        await connection.execute("create extension vector")
    found = await keeper.similar(INCIDENTS, "demo", Likeness(vector=vector_of(LIBRARY["lease"]), limit=1))
    assert [match.record.id for match in found] == ["lease"]
