"""PostgreSQL's index of vectors: a filter that leaves one record in a hundred still finds as many as are asked for."""

from collections.abc import AsyncIterator

import numpy as np
import pytest

from core.adapters.postgres.similarity_tables import TABLES
from core.infrastructure.central_hub import Hub, open_hub
from core.model.records import MarketWindow
from core.model.vectors import vector_of
from core.ports.similarity import Likeness
from core.settings import Settings
from tests.engines import House, new_databases
from tests.similarity_checks import WINDOWS

RECORDS = 2_000
FOUND = 10
RARE = {"symbol": "RARE"}


def window(number: int) -> MarketWindow:
    moves = np.random.default_rng(number).normal(0, 1e-3, 40)
    symbol = "RARE" if number % 100 == 0 else "COMMON"
    return MarketWindow(
        symbol=symbol, interval="1m", start_ms=0, label="x", closes=np.exp(np.cumsum(moves)).tolist()
    )


@pytest.fixture(scope="module")
def settings(house: House) -> Settings:
    return new_databases(house)


@pytest.fixture
async def hub(settings: Settings) -> AsyncIterator[Hub]:
    """Yield a house whose planner has nothing left but the index of vectors."""
    async with open_hub(settings, {"postgres", "similarity"}) as hub:
        await hub["similarity"].load(
            WINDOWS, "demo", {f"{n:05}": window(n) for n in range(RECORDS)}, version="a" * 32
        )
        async with hub["postgres"].acquire() as connection:
            for way in ("seqscan", "bitmapscan", "sort"):
                await connection.execute(
                    f'alter database "{settings.postgres.database}" set enable_{way} = off'
                )
    async with open_hub(settings, {"postgres", "similarity"}) as hub:
        yield hub


async def test_a_filter_leaves_enough_and_the_nearest_of_them(hub: Hub) -> None:
    asked = vector_of(window(10_000))
    async with hub["postgres"].of_tenant("demo") as connection:
        plan = await connection.fetch(
            f"explain {TABLES[WINDOWS].nearest(['symbol'])}", "demo", asked, FOUND, "RARE"
        )
        assert "market_windows_nearest" in "\n".join(row[0] for row in plan)
        without = await connection.fetch(TABLES[WINDOWS].nearest(["symbol"]), "demo", asked, FOUND, "RARE")
    assert len(without) < FOUND, "the index alone finds enough: this test shows nothing"
    found = await hub["similarity"].similar(WINDOWS, "demo", Likeness(vector=asked, where=RARE, limit=FOUND))
    rare = {f"{n:05}": float(np.dot(asked, vector_of(window(n)))) for n in range(0, RECORDS, 100)}
    nearest = sorted(rare, key=lambda key: -rare[key])[:FOUND]
    assert len(found) == FOUND
    assert len({match.record.id for match in found} & set(nearest)) >= FOUND - 2
