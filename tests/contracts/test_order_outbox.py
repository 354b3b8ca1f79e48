"""What is still to be done about orders: one worker is given each row, whoever looks at once with it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from core.errors.exceptions import Defect
from core.model.ledger import Command, OutboxRow
from core.model.orders import OrderState
from core.model.venues import OrderChange
from core.settings import Settings
from tests.engines import House, new_databases
from tests.ledger_floors import OURS, THEIRS, Books, opened_books

_S = OrderState
WAITING_S_MAX = 20.0
LEASE_S = 60.0


@pytest.fixture(scope="module")
def settings(house: House) -> Settings:
    return new_databases(house)


@pytest.fixture
async def books(settings: Settings) -> AsyncIterator[Books]:
    async with opened_books(settings) as opened:
        yield opened


async def test_what_was_put_is_to_be_done_until_it_is_done(books: Books) -> None:
    entry = await books.walked(_S.SENDING, _S.ACCEPTED)
    change = OrderChange(price=Decimal("1.08"), take_profit=Decimal("1.2"))
    async with books.work() as work:
        assert await books.ledger.done(work, entry.order.id, Command.SEND)
        await books.ledger.put(work, entry, Command.MODIFY, change)
        await books.ledger.put(work, entry, Command.CANCEL)
    rows = await books.ledger.due_of(OURS, entry.order.id)
    assert [(row.command, row.change, row.tries) for row in rows] == [
        (Command.MODIFY, change, 1),
        (Command.CANCEL, None, 1),
    ]
    assert {(row.tenant, row.account, row.order) for row in rows} == {(OURS, books.name, entry.order.id)}
    async with books.work() as work:
        assert await books.ledger.done(work, entry.order.id, Command.MODIFY)
        assert not await books.ledger.done(work, entry.order.id, Command.MODIFY)
    assert await books.commands(entry.order.id) == ["cancel"]


async def test_a_move_takes_what_it_does_off_the_list_or_neither_happens(books: Books) -> None:
    entry = await books.kept()
    stale = replace(entry, version=7)
    with pytest.raises(Defect):
        async with books.work() as work:
            await books.ledger.move(work, stale, _S.SENDING, what="order.sending", done=Command.SEND)
    assert await books.commands(entry.order.id) == ["send"]
    async with books.work() as work:
        await books.ledger.put(work, entry, Command.CANCEL)
        await books.ledger.move(work, entry, _S.SENDING, what="order.sending", done=Command.SEND)
    assert await books.commands(entry.order.id) == ["cancel"]


def mine(books: Books, rows: Any) -> list[OutboxRow]:
    """Leave out what other tests have left to be done."""
    return [row for row in rows if row.account == books.name]


async def make_due(books: Books) -> None:
    await books.rows(
        "update order_outbox set due_at = clock_timestamp() where account = $1 and tries = 0", books.name
    )


async def test_a_new_order_is_told_at_once_and_swept_up_a_second_later(books: Books) -> None:
    entry = await books.kept()
    assert mine(books, await books.ledger.due(1_000, LEASE_S)) == []
    await make_due(books)
    (row,) = mine(books, await books.ledger.due(1_000, LEASE_S))
    assert (row.order, row.command, row.tries) == (entry.order.id, Command.SEND, 1)


async def test_of_workers_that_look_at_once_one_is_given_each_row(books: Books) -> None:
    ids = {(await books.kept()).order.id for _ in range(20)}
    await make_due(books)
    found = await asyncio.gather(*(books.ledger.due(5, LEASE_S) for _ in range(8)))
    given = [row.order for rows in found for row in mine(books, rows)]
    assert len(given) == len(set(given))
    assert all(len(rows) <= 5 for rows in found)
    rest = [row.order for row in mine(books, await books.ledger.due(1_000, LEASE_S))]
    assert sorted([*given, *rest]) == sorted(ids)
    assert mine(books, await books.ledger.due(1_000, LEASE_S)) == []


async def test_who_was_told_and_who_sweeps_are_never_given_the_same_row(books: Books) -> None:
    for _ in range(10):
        entry = await books.kept()
        await make_due(books)
        told, swept, again = await asyncio.gather(
            books.ledger.due_of(OURS, entry.order.id),
            books.ledger.due(1_000, LEASE_S),
            books.ledger.due_of(OURS, entry.order.id),
        )
        assert len([*told, *again, *mine(books, swept)]) == 1


async def test_a_row_whose_lease_is_over_is_given_again(books: Books) -> None:
    await books.kept()
    await make_due(books)
    tries = [row.tries for _ in range(3) for row in mine(books, await books.ledger.due(1_000, 0.0))]
    assert tries == [1, 2, 3]


async def test_what_another_tenant_has_to_do_is_not_told(books: Books) -> None:
    entry = await books.kept()
    assert await books.ledger.due_of(THEIRS, entry.order.id) == []
    async with books.work(THEIRS) as work:
        assert not await books.ledger.done(work, entry.order.id, Command.SEND)
