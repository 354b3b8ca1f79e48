"""Which moves of an order are legal: the database says what the code says, and holds even the code to it."""

import asyncpg
import pytest

from core.adapters.postgres.pool import Postgres, open_pool
from core.errors.exceptions import Defect
from core.model.orders import LEGAL_MOVES, OrderState
from core.settings import Settings
from tests.engines import House, new_databases

ID = "01HZZZZZZZZZZZZZZZZZZZZZZZ"
INSERT = (
    "insert into orders (tenant, id, account, symbol, side, type, time_in_force, volume, reduce_only, position,"
    " client_order_id, strategy, magic, state, submitted_by, external) values ('demo', $1, 'a', 's', 'buy', 'market',"
    " 'gtc', 1, false, '', '', '', 1, $2, 'client:c', $3)"
)


@pytest.fixture(scope="module")
def settings(house: House) -> Settings:
    return new_databases(house)


async def test_the_database_has_the_moves_the_code_has(settings: Settings) -> None:
    async with open_pool(settings, {}) as postgres, postgres.acquire() as connection:
        for old in OrderState:
            for new in OrderState:
                legal = await connection.fetchval("select order_may_move($1, $2)", old, new)
                assert legal == (new in LEGAL_MOVES[old]), (old, new)


async def begun(postgres: Postgres, state: OrderState, *, external: bool) -> None:
    async with postgres.acquire() as connection:
        await connection.execute("delete from orders")
        await connection.execute(INSERT, ID, state, external)


async def moved(postgres: Postgres, state: OrderState) -> bool:
    try:
        async with postgres.of_tenant("demo") as connection:
            await connection.execute("update orders set state = $1, version = version + 1", state)
    except Defect:
        return False
    return True


@pytest.mark.parametrize("old", OrderState)
async def test_only_legal_moves_are_stored(settings: Settings, old: OrderState) -> None:
    async with open_pool(settings, {}) as postgres:
        for new in OrderState:
            await begun(postgres, old, external=True)
            assert await moved(postgres, new) == (new in LEGAL_MOVES[old] or new is old), new


@pytest.mark.parametrize("state", OrderState)
async def test_an_order_of_ours_begins_queued_or_denied(settings: Settings, state: OrderState) -> None:
    async with open_pool(settings, {}) as postgres:
        if state in {OrderState.QUEUED, OrderState.DENIED}:
            await begun(postgres, state, external=False)
        else:
            with pytest.raises(Defect):
                await begun(postgres, state, external=False)


async def test_a_change_beside_the_version_is_refused(settings: Settings) -> None:
    async with open_pool(settings, {}) as postgres:
        await begun(postgres, OrderState.QUEUED, external=False)
        for change in (
            "state = 'SENDING'",
            "version = version + 2",
            "version = version + 1, filled_volume = -1",
        ):
            with pytest.raises(Defect):
                async with postgres.of_tenant("demo") as connection:
                    await connection.execute(f"update orders set {change}")


@pytest.mark.parametrize("table", ["orders", "order_events", "fills", "breaks", "account_books"])
async def test_a_tenant_deletes_nothing_of_what_was(settings: Settings, table: str) -> None:
    async with open_pool(settings, {}) as postgres:
        with pytest.raises(Defect) as refused:
            async with postgres.of_tenant("demo") as connection:
                await connection.execute(f"delete from {table}")
        assert isinstance(refused.value.__cause__, asyncpg.InsufficientPrivilegeError)


@pytest.mark.parametrize("table", ["order_events", "fills", "breaks"])
async def test_a_tenant_edits_nothing_of_what_was(settings: Settings, table: str) -> None:
    async with open_pool(settings, {}) as postgres:
        with pytest.raises(Defect):
            async with postgres.of_tenant("demo") as connection:
                await connection.execute(
                    f"update {table} set account = 'b'"
                    if table != "order_events"
                    else "update order_events set what = ''"
                )
