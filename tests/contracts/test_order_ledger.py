"""The ledger of orders, promise by promise: works, locks, and who may move an order."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal

import pytest
from ulid import ULID

from core.errors.exceptions import Defect, NotFound, Unavailable
from core.model.orders import OrderState
from core.model.risk import SwitchScope
from core.settings import Settings
from tests.engines import House, new_databases
from tests.ledger_floors import OURS, PRICE, SHOWN_AT_MS, THEIRS, Books, opened_books

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


async def waits(books: Books) -> None:
    """Wait until somebody waits for a lock."""
    async with asyncio.timeout(WAITING_S_MAX):
        while not await books.rows(
            "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        ):
            await asyncio.sleep(0.01)


# -- works -----------------------------------------------------------------------------------------------


async def test_a_work_that_ends_in_an_error_leaves_nothing(books: Books) -> None:
    entry = books.entry()

    async def fails() -> None:
        async with books.work() as work:
            await books.ledger.lock_account(work, books.name)
            await books.ledger.add(work, entry)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fails()
    assert await books.rows("select from orders where id = $1", entry.order.id) == []
    assert await books.commands(entry.order.id) == []


async def test_a_ledger_that_goes_away_in_the_middle_is_unavailable(books: Books) -> None:
    async def ends() -> None:
        async with books.work() as work:
            pid = await work.connection.fetchval("select pg_backend_pid()")
            await books.rows("select pg_terminate_backend($1)", pid)
            await books.ledger.now_ms(work)

    with pytest.raises(Unavailable):
        await ends()


async def test_time_goes_on_within_a_work(books: Books) -> None:
    async with books.work() as work:
        first = await books.ledger.now_ms(work)
        async with asyncio.timeout(WAITING_S_MAX):
            while await books.ledger.now_ms(work) == first:
                pass


async def test_the_operators_work_belongs_to_no_tenant(books: Books) -> None:
    entries = [await books.kept(tenant=tenant) for tenant in (OURS, THEIRS)]
    async with books.ledger.operators_work() as work:
        ids = [entry.order.id for entry in entries]
        rows = await work.connection.fetch(
            "select tenant from orders where id = any($1) order by tenant", ids
        )
    assert [row["tenant"] for row in rows] == [OURS, THEIRS]


async def test_a_work_that_holds_risk_keeps_a_switch_waiting(books: Books) -> None:
    risk = books.hub["risk_book"]

    async def engage() -> None:
        async with books.work() as work:
            await risk.engage(work, SwitchScope.ACCOUNT, books.name, reason="r", author="client:c")

    async with books.ledger.work(OURS, holding_risk=True) as work:
        engaging = asyncio.create_task(engage())
        await waits(books)
        assert (await risk.halted(work, account=books.name, strategy="")).by == ()
    await engaging
    async with books.ledger.work(OURS, holding_risk=True) as work:
        assert (await risk.halted(work, account=books.name, strategy="")).by == (f"account {books.name}",)


# -- locks -----------------------------------------------------------------------------------------------


async def test_who_locks_an_account_waits_for_who_has_it(books: Books) -> None:
    async def second() -> int:
        async with books.work() as work:
            return (await books.ledger.lock_account(work, books.name)).consecutive_rejects

    async with books.work() as work:
        standing = await books.ledger.lock_account(work, books.name)
        waiting = asyncio.create_task(second())
        await waits(books)
        assert not waiting.done()
        await books.ledger.stand(work, replace(standing, consecutive_rejects=3))
    assert await waiting == 3


async def test_an_order_is_what_it_has_become_while_its_lock_was_waited_for(books: Books) -> None:
    entry = await books.kept()

    async def second() -> tuple[OrderState, int, int]:
        async with books.work() as work:
            found = await books.ledger.locked(work, entry.order.id)
            return found.state, found.version, (await books.ledger.lock_account(work, books.name)).moves

    async with books.work() as work:
        await books.ledger.locked(work, entry.order.id)
        waiting = asyncio.create_task(second())
        await waits(books)
        await books.walk(work, entry, _S.SENDING, _S.ACCEPTED)
    assert await waiting == (_S.ACCEPTED, 3, 2)


async def test_a_denied_first_order_of_an_account_can_be_locked(books: Books) -> None:
    async with books.work() as work:
        entry = await books.ledger.add(work, books.entry(_S.DENIED))
    async with books.work() as work:
        assert (await books.ledger.locked(work, entry.order.id)).state is _S.DENIED


@pytest.mark.parametrize("ask", ["found", "locked"])
@pytest.mark.parametrize("whose", ["nobody", "theirs"])
async def test_an_order_of_somebody_else_is_not_there(books: Books, ask: str, whose: str) -> None:
    order_id = str(ULID()) if whose == "nobody" else (await books.kept(tenant=THEIRS)).order.id
    async with books.work() as work:
        with pytest.raises(NotFound) as missing:
            await getattr(books.ledger, ask)(work, order_id)
    assert missing.value.code == "ORDER_NOT_FOUND"


async def test_an_account_nobody_has_cannot_be_locked(books: Books) -> None:
    async with books.work() as work:
        with pytest.raises(NotFound) as missing:
            await books.ledger.lock_account(work, "nobody")
    assert missing.value.code == "ACCOUNT_NOT_FOUND"


# -- moves -----------------------------------------------------------------------------------------------


async def test_a_move_is_kept_counted_and_told(books: Books) -> None:
    entry = await books.walked(_S.SENDING)
    async with books.work() as work:
        moved = await books.ledger.move(
            work,
            entry,
            _S.ACCEPTED,
            what="order.reported",
            detail={"venue_order": "7"},
            venue_order="7",
            stop_loss=Decimal("1.05"),
            sent_at_ms=SHOWN_AT_MS,
            absent_since_ms=None,
        )
        assert (await books.ledger.lock_account(work, books.name)).moves == 2
        assert await books.ledger.found(work, entry.order.id) == moved
    assert (moved.state, moved.version, moved.venue_order, moved.sent_at_ms) == (
        _S.ACCEPTED,
        3,
        "7",
        SHOWN_AT_MS,
    )
    assert (moved.order.stop_loss, moved.order.price) == (Decimal("1.05"), PRICE)
    told = (await books.hub["trading_reads"].events(OURS, entry.order.id))[-1]
    assert (told.seq, told.old_state, told.new_state) == (3, _S.SENDING, _S.ACCEPTED)
    assert (told.what, told.detail) == ("order.reported", {"venue_order": "7"})


async def test_a_move_within_a_state_is_one_too(books: Books) -> None:
    entry = await books.walked(_S.SENDING, _S.ACCEPTED)
    async with books.work() as work:
        moved = await books.ledger.move(work, entry, _S.ACCEPTED, what="order.reported", reason="later")
    assert (moved.version, moved.reason) == (4, "later")


@pytest.mark.parametrize("state", [_S.ACCEPTED, _S.FILLED, _S.UNKNOWN, _S.CREATED])
async def test_an_illegal_move_changes_nothing(books: Books, state: OrderState) -> None:
    entry = await books.kept()
    async with books.work() as work:
        with pytest.raises(Defect) as refused:
            await books.ledger.move(work, entry, state, what="order.reported")
    assert refused.value.code == "ILLEGAL_MOVE"
    async with books.work() as work:
        assert await books.ledger.found(work, entry.order.id) == entry


@pytest.mark.parametrize("tenant", [OURS, THEIRS])
async def test_who_saw_another_version_moves_nothing(books: Books, tenant: str) -> None:
    entry = await books.walked(_S.SENDING)
    stale = replace(entry, version=entry.version - 1) if tenant == OURS else entry
    with pytest.raises(Defect) as refused:
        async with books.work(tenant) as work:
            await books.ledger.move(work, stale, _S.ACCEPTED, what="order.reported")
    assert refused.value.code == "ORDER_VERSION"
    assert len(await books.hub["trading_reads"].events(OURS, entry.order.id)) == 2


@pytest.mark.parametrize("filled", [Decimal("0.04"), Decimal("0.11")])
async def test_a_filled_volume_neither_shrinks_nor_exceeds_the_order(books: Books, filled: Decimal) -> None:
    entry = await books.walked(_S.SENDING)
    async with books.work() as work:
        part = Decimal("0.05")
        entry = await books.ledger.move(work, entry, _S.PARTIALLY_FILLED, what="a", filled_volume=part)
    with pytest.raises(Defect):
        async with books.work() as work:
            await books.ledger.move(work, entry, _S.PARTIALLY_FILLED, what="b", filled_volume=filled)


async def test_a_cancelled_order_may_still_be_filled_in_parts(books: Books) -> None:
    entry = await books.walked(_S.SENDING, _S.ACCEPTED, _S.PENDING_CANCEL, _S.CANCELED)
    async with books.work() as work:
        assert await books.ledger.in_motion(work, books.name) == []
        entry = await books.walk(work, entry, _S.PARTIALLY_FILLED)
        assert await books.ledger.in_motion(work, books.name) == [entry]
        assert (await books.walk(work, entry, _S.FILLED)).state is _S.FILLED
