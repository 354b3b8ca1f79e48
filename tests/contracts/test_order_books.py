"""What the ledger finds again of an account: its orders, its fills and positions, how it stands."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest

from core.errors.exceptions import Defect
from core.model.ledger import Break, BreakSort
from core.model.orders import OrderState, OrderType
from core.settings import Settings
from tests.engines import House, new_databases
from tests.ledger_floors import OURS, SHOWN_AT_MS, THEIRS, Books, opened_books
from tests.trading_floors import account, keep_records

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


# -- orders ----------------------------------------------------------------------------------------------


async def test_orders_in_motion_are_those_that_may_still_change_oldest_first(books: Books) -> None:
    assert not await books.ledger.any_in_motion(OURS, books.name)
    ways: list[tuple[OrderState, ...]] = [
        (),
        (_S.SENDING,),
        (_S.SENDING, _S.UNKNOWN),
        (_S.SENDING, _S.ACCEPTED),
        (_S.SENDING, _S.PARTIALLY_FILLED),
        (_S.SENDING, _S.ACCEPTED, _S.PENDING_CANCEL),
        (_S.SENDING, _S.ACCEPTED, _S.PENDING_MODIFY),
    ]
    moving = [await books.walked(*way) for way in ways]
    for way in [(_S.SENDING, end) for end in (_S.FILLED, _S.REJECTED, _S.CANCELED, _S.EXPIRED)]:
        await books.walked(*way)
    await books.kept(_S.DENIED)
    await books.kept(tenant=THEIRS)
    async with books.work() as work:
        assert await books.ledger.in_motion(work, books.name) == sorted(moving, key=lambda one: one.order.id)
    assert await books.ledger.any_in_motion(OURS, books.name)
    assert not await books.ledger.any_in_motion(OURS, "nobody")


async def test_an_order_is_found_by_its_ticket_on_its_account_alone(books: Books) -> None:
    entry = await books.walked(_S.SENDING)
    async with books.work() as work:
        entry = await books.ledger.move(work, entry, _S.ACCEPTED, what="order.reported", venue_order="7")
        assert await books.ledger.by_venue_order(work, books.name, "7") == entry
        assert await books.ledger.by_venue_order(work, books.name, "8") is None
        assert await books.ledger.by_venue_order(work, "other", "7") is None
    async with books.work(THEIRS) as work:
        assert await books.ledger.by_venue_order(work, books.name, "7") is None


async def test_an_adopted_order_is_kept_as_it_was_found(books: Books) -> None:
    entry = replace(books.entry(_S.ACCEPTED), external=True, venue_order="77", submitted_by="external")
    async with books.work() as work:
        await books.ledger.lock_account(work, books.name)
        await books.ledger.adopt(work, entry)
        found = await books.ledger.by_venue_order(work, books.name, "77")
        assert found is not None
        assert await books.ledger.in_motion(work, books.name) == [found]
    assert (found.order.id, found.state, found.external) == (entry.order.id, _S.ACCEPTED, True)
    (event,) = await books.hub["trading_reads"].events(OURS, entry.order.id)
    assert (event.old_state, event.new_state, event.what) == (_S.CREATED, _S.ACCEPTED, "order.adopted")
    assert await books.commands(entry.order.id) == []
    again = replace(books.entry(_S.ACCEPTED), external=True, venue_order="77")
    with pytest.raises(Defect):
        async with books.work() as work:
            await books.ledger.adopt(work, again)


async def test_an_order_that_came_before_us_may_not_be_adopted_as_ours(books: Books) -> None:
    with pytest.raises(Defect):
        async with books.work() as work:
            await books.ledger.adopt(work, books.entry(_S.ACCEPTED, type=OrderType.MARKET, price=None))


# -- accounts --------------------------------------------------------------------------------------------


async def test_how_an_account_stands_is_kept_but_for_the_moves_it_counts_itself(books: Books) -> None:
    entry = await books.kept()
    async with books.work() as work:
        standing = await books.ledger.lock_account(work, books.name)
        assert (standing.balance, standing.viewed_at_ms, standing.moves) == (None, None, 0)
        stood = replace(
            standing,
            balance=Decimal("10000.01"),
            equity=Decimal("9999.5"),
            margin=Decimal(11),
            margin_free=Decimal("9988.5"),
            notional=Decimal(1_100),
            day=date(2026, 9, 21),
            day_start_equity=Decimal(10_000),
            peak_equity=Decimal(10_001),
            consecutive_rejects=2,
            deals_until_ms=SHOWN_AT_MS,
            viewed_at_ms=SHOWN_AT_MS,
            reconciled_at_ms=SHOWN_AT_MS,
        )
        await books.walk(work, entry, _S.SENDING)
        await books.ledger.stand(work, stood)
        assert await books.ledger.lock_account(work, books.name) == replace(stood, moves=1)
    async with books.work() as work:
        assert await books.ledger.lock_account(work, books.name) == replace(stood, moves=1)
    async with books.work(THEIRS) as work:
        assert (await books.ledger.lock_account(work, books.name)).balance is None


async def test_disagreements_are_written_down_as_often_as_they_are_found(books: Books) -> None:
    found = [
        Break(sort=BreakSort.MISSING, subject="o1", detail={"state": "ACCEPTED"}),
        Break(sort=BreakSort.QUANTITY, subject="EURUSD", detail={"ledger": "1", "venue": "2"}),
    ]
    async with books.work() as work:
        await books.ledger.note_breaks(work, books.name, found)
        await books.ledger.note_breaks(work, books.name, found[:1])
    rows = await books.rows("select sort, subject from breaks where account = $1 order by id", books.name)
    assert [(row["sort"], row["subject"]) for row in rows] == [
        ("missing", "o1"),
        ("quantity", "EURUSD"),
        ("missing", "o1"),
    ]


async def test_accounts_that_trade_have_a_venue_and_a_source_of_their_tenant(books: Books) -> None:
    others = {f"{books.name}-none": account(venue="none"), f"{books.name}-away": account(source="rival")}
    await keep_records(books.settings, OURS, others, instrument=False)
    found = [one for one in await books.ledger.accounts() if one.id.startswith(books.name)]
    assert [(one.tenant, one.id, one.source) for one in found] == [
        (OURS, books.name, OURS),
        (THEIRS, books.name, THEIRS),
    ]
