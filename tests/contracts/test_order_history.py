"""An account's history is long: to submit an order costs no more for it."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import pytest

from core.adapters.postgres.order_desk import _FACTS
from core.settings import Settings
from tests.engines import House, new_databases
from tests.reconciled_accounts import SYMBOL, TENANT, Reconciled, reconciled

LONG: Final = 20_000
READ_ROWS_MAX: Final = 50
HISTORY: Final = (
    "insert into orders (tenant, id, account, symbol, side, type, time_in_force, volume, filled_volume, reduce_only,"
    " position, client_order_id, strategy, magic, state, submitted_by, external, submitted_at, updated_at)"
    " select $1, '01' || lpad(n::text, 24, '0'), $2, $3, 'buy', 'market', 'gtc', 1, 1, false, '', '', '', n,"
    " case n % 3 when 0 then 'DENIED' when 1 then 'CANCELED' else 'FILLED' end, 'client:c', true,"
    " now() - make_interval(mins => 10 + n), now() - make_interval(mins => 10 + n) from generate_series(1, $4::int) n"
)


@pytest.fixture(scope="module")
def settings(house: House) -> Settings:
    return new_databases(house)


@pytest.fixture
async def books(settings: Settings) -> AsyncIterator[Reconciled]:
    async with reconciled(settings) as opened:
        yield opened


def rows_read(plan: dict[str, Any]) -> int:
    """Return how many rows a plan and its parts took from tables, those it threw away too."""
    own = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0) if "Relation Name" in plan else 0
    return int(own * plan["Actual Loops"]) + sum(rows_read(part) for part in plan.get("Plans", []))


async def test_what_an_order_is_judged_by_is_found_without_reading_what_is_long_over(
    books: Reconciled,
) -> None:
    async with books.hub["postgres"].acquire() as connection:
        await connection.execute(HISTORY, TENANT, books.name, SYMBOL, LONG)
        await connection.execute("analyze orders")
    seen = datetime.now(UTC) - timedelta(seconds=5)
    asked = (TENANT, books.name, SYMBOL, "buy", "market", seen, Decimal(1), None, None, 60.0, "mine", "")
    async with books.hub["order_ledger"].work(TENANT) as work:
        text = await work.connection.fetchval(f"explain (analyze, format json) {_FACTS}", *asked)
        facts = await work.connection.fetchrow(_FACTS, *asked)
    (plan,) = json.loads(text)
    assert rows_read(plan["Plan"]) <= READ_ROWS_MAX
    assert (facts["submits"], facts["twins"], facts["buys"], facts["notional_moving"]) == (0, 0, 0, 0)
