"""One suite for everything that keeps similar records: PostgreSQL with pgvector, and Weaviate's adapter against a
double of its protocol and, where TICKGATE_TEST_WEAVIATE_URL names one, against a real server.
"""

import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator

import pytest

from core.infrastructure.central_hub import open_hub
from core.ports.similarity import Similarity
from core.settings import Settings
from tests.engines import House, new_databases
from tests.similarity_checks import CHECKS, Check
from tests.weaviate_servers import REAL_URL, migrated, real_server, running_double

KEEPERS = ["postgres", "weaviate-double", "weaviate"]


@pytest.fixture(scope="module")
def databases(house: House) -> Settings:
    return new_databases(house)


@pytest.fixture(scope="module", params=KEEPERS)
def settings(request: pytest.FixtureRequest, databases: Settings) -> Iterator[Settings]:
    with contextlib.ExitStack() as stack:
        if request.param == "postgres":
            yield databases
        elif request.param == "weaviate-double":
            yield migrated(databases, stack.enter_context(running_double()))
        elif REAL_URL:
            yield migrated(databases, real_server())
        else:
            pytest.skip("TICKGATE_TEST_WEAVIATE_URL names no server")


@pytest.fixture
async def keeper(settings: Settings) -> AsyncIterator[Similarity]:
    async with open_hub(settings, {"similarity"}) as hub:
        yield hub["similarity"]


@pytest.mark.parametrize("rule", CHECKS, ids=lambda rule: rule.__name__)
async def test_of_every_keeper(keeper: Similarity, rule: Check) -> None:
    await rule(keeper, f"tenant-{secrets.token_hex(6)}")
