"""Locking an order: one statement takes the account's lock and the order's, and shows both as they are under them."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal

import pytest

from core.adapters.postgres.work import PostgresWork
from core.errors.exceptions import NotFound
from core.model.ledger import OrderEntry, Standing
from core.model.orders import OrderState
from core.settings import Settings
from tests.engines import House, new_databases
from tests.reconciled_accounts import TENANT, Reconciled, reconciled

_S = OrderState


@pytest.fixture(scope="module")
def settings(house: House) -> Settings:
    return new_databases(house)


@pytest.fixture
async def books(settings: Settings) -> AsyncIterator[Reconciled]:
    async with reconciled(settings) as opened:
        yield opened


async def locked(books: Reconciled, order: str) -> tuple[OrderEntry, Standing]:
    ledger = books.hub["order_ledger"]
    async with ledger.work(TENANT) as work:
        return await ledger.locked(work, order), await ledger.lock_account(work, books.name)


async def somebody_waits(books: Reconciled, work: PostgresWork) -> None:
    async with asyncio.timeout(10), books.hub["postgres"].acquire() as connection:
        while not await connection.fetchval(
            "select exists(select from pg_stat_activity where $1 = any(pg_blocking_pids(pid)))",
            work.connection.get_server_pid(),
        ):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("told", [True, False], ids=["the account changes too", "the order alone changes"])
async def test_who_waited_sees_what_was_done_meanwhile(books: Reconciled, told: bool) -> None:
    entry = await books.order(_S.ACCEPTED)
    ledger = books.hub["order_ledger"]
    async with ledger.work(TENANT) as work:
        first = await ledger.locked(work, entry.order.id)
        waiting = asyncio.create_task(locked(books, entry.order.id))
        await somebody_waits(books, work)
        moved = await books.settlement.move(work, first, _S.PENDING_CANCEL, what="order.cancel_asked")
        if told:
            standing = await ledger.lock_account(work, books.name)
            await ledger.stand(work, replace(standing, balance=Decimal(7)))
    seen, standing = await waiting
    assert (seen.state, seen.version) == (_S.PENDING_CANCEL, moved.version)
    assert standing.moves == (await locked(books, entry.order.id))[1].moves
    assert not told or standing.balance == Decimal(7)


async def test_many_at_once_see_each_others_changes(books: Reconciled) -> None:
    entry = await books.order(_S.ACCEPTED)
    ledger = books.hub["order_ledger"]

    async def count() -> None:
        async with ledger.work(TENANT) as work:
            found = await ledger.locked(work, entry.order.id)
            await books.settlement.move(work, found, found.state, what="order.counted")

    await asyncio.gather(*(count() for _ in range(20)))
    assert (await books.entry(entry.order.id)).version == entry.version + 20


async def test_what_is_not_there_is_not_found(books: Reconciled) -> None:
    with pytest.raises(NotFound, match="ORDER_NOT_FOUND"):
        await locked(books, "01HZZZZZZZZZZZZZZZZZZZZZZZ")
