"""What follows from each way in which ledger and venue may differ: one test for each row of the table."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal

import pytest
import structlog
from structlog.testing import LogCapture

from core.errors.exceptions import Unavailable
from core.model.ledger import BreakSort, Command
from core.model.orders import OrderState, OrderType, Side
from core.model.venues import OrderChange, VenueReport
from core.settings import Settings
from core.trading import settling
from core.trading.changes import OrderChanges
from core.trading.reconciliation import ARRIVED_WITHIN_S, Patience
from tests.engines import House, new_databases
from tests.reconciled_accounts import (
    PRICE,
    TENANT,
    TICKET,
    VOLUME,
    Reconciled,
    dealt,
    held,
    reconciled,
    shown,
    sold,
)

HALF = VOLUME / 2
_S = OrderState


@pytest.fixture(scope="module")
def settings(house: House) -> Settings:
    return new_databases(house)


@pytest.fixture
def alerts(monkeypatch: pytest.MonkeyPatch) -> LogCapture:
    """What settling logs: its logger keeps what it has first met."""
    captured = LogCapture()
    monkeypatch.setattr(settling, "log", structlog.wrap_logger(None, [captured], structlog.BoundLogger))
    return captured


@pytest.fixture
async def books(settings: Settings) -> AsyncIterator[Reconciled]:
    async with reconciled(settings) as opened:
        yield opened


# -- matched ---------------------------------------------------------------------------------------------


async def test_what_is_the_same_here_and_there_stays_without_an_event(books: Reconciled) -> None:
    entry = await books.order(_S.ACCEPTED)
    books.venue.orders = [shown(entry.order.id, _S.ACCEPTED)]
    assert await books.look()
    assert (await books.entry(entry.order.id)).version == entry.version
    assert await books.breaks() == []


async def test_what_was_filled_there_is_filled_here_once(books: Reconciled) -> None:
    entry = await books.order(_S.ACCEPTED)
    books.venue.ended = [shown(entry.order.id, _S.FILLED, left=Decimal(0))]
    books.venue.deals, books.venue.positions = [dealt(entry.order.id)], [held()]
    for _ in range(3):
        assert await books.look()
    after = await books.entry(entry.order.id)
    assert (after.state, after.filled_volume, after.average_price) == (_S.FILLED, VOLUME, PRICE)
    assert [fill.order for fill in await books.fills()] == [entry.order.id]
    assert [one.volume for one in await books.holdings()] == [VOLUME]
    assert await books.breaks() == []


async def test_a_part_that_was_filled_leaves_the_rest_working(books: Reconciled) -> None:
    entry = await books.order(_S.ACCEPTED)
    books.venue.orders = [shown(entry.order.id, _S.PARTIALLY_FILLED, left=HALF)]
    books.venue.deals, books.venue.positions = [dealt(entry.order.id, HALF)], [held(HALF)]
    assert await books.look()
    after = await books.entry(entry.order.id)
    assert (after.state, after.filled_volume) == (_S.PARTIALLY_FILLED, HALF)


async def test_an_order_said_to_be_filled_waits_for_its_deals(books: Reconciled) -> None:
    entry = await books.order(_S.ACCEPTED)
    books.venue.ended = [shown(entry.order.id, _S.FILLED, left=Decimal(0))]
    assert await books.look()
    assert (await books.entry(entry.order.id)).state is _S.ACCEPTED
    books.venue.deals, books.venue.positions = [dealt(entry.order.id)], [held()]
    assert await books.look()
    assert (await books.entry(entry.order.id)).state is _S.FILLED


async def test_accepted_and_rejected_later_is_rejected(books: Reconciled) -> None:
    entry = await books.order(_S.ACCEPTED)
    books.venue.ended = [shown(entry.order.id, _S.REJECTED)]
    assert await books.look()
    assert (await books.entry(entry.order.id)).state is _S.REJECTED


@pytest.mark.parametrize("waiting", [_S.PENDING_CANCEL, _S.PENDING_MODIFY])
async def test_what_is_rejected_while_a_change_is_asked_for_has_ended(
    books: Reconciled, waiting: OrderState
) -> None:
    entry = await books.order(waiting)
    books.venue.ended = [shown(entry.order.id, _S.REJECTED)]
    assert await books.look()
    assert (await books.entry(entry.order.id)).state is _S.CANCELED


async def test_a_cancellation_of_what_was_rejected_ends_it(books: Reconciled) -> None:
    entry = await books.order(_S.PENDING_CANCEL)
    books.venue.answer = VenueReport(state=_S.REJECTED, order=TICKET)
    await books.dispatcher.handle(books.row(entry.order.id, Command.CANCEL))
    assert (await books.entry(entry.order.id)).state is _S.CANCELED


# -- missing ---------------------------------------------------------------------------------------------


async def test_an_order_missed_once_stays_as_it_is(books: Reconciled) -> None:
    entry = await books.order(_S.ACCEPTED)
    assert await books.look()
    await books.later(29)
    assert await books.look()
    assert (await books.entry(entry.order.id)).state is _S.ACCEPTED
    assert await books.breaks() == []


async def test_an_order_missed_twice_far_apart_is_cancelled_and_a_break(books: Reconciled) -> None:
    entry = await books.order(_S.ACCEPTED)
    assert await books.look()
    await books.later(31)
    assert await books.look()
    after = await books.entry(entry.order.id)
    assert (after.state, after.code) == (_S.CANCELED, "MISSING_AT_VENUE")
    assert await books.breaks() == [BreakSort.MISSING]


async def test_an_order_seen_in_between_has_to_be_missed_twice_again(books: Reconciled) -> None:
    entry = await books.order(_S.ACCEPTED)
    assert await books.look()
    books.venue.orders = [shown(entry.order.id, _S.ACCEPTED)]
    assert await books.look()
    books.venue.orders = []
    await books.later(31)
    assert await books.look()
    assert (await books.entry(entry.order.id)).state is _S.ACCEPTED


# -- external --------------------------------------------------------------------------------------------


async def test_an_adoption_is_audited(books: Reconciled) -> None:
    books.venue.orders = [shown("", _S.ACCEPTED, ticket="99")]
    assert await books.look()
    (entry,) = await books.every_order()
    told = await books.hub["audit"].events(TENANT, after=0, limit=10, order=entry.order.id)
    assert [one.type for one in told] == ["order.adopted"]


async def test_a_fill_told_with_an_answer_belongs_to_its_order_whatever_its_tag(books: Reconciled) -> None:
    books.venue.orders = [shown("", _S.ACCEPTED, ticket="99")]
    assert await books.look()
    (entry,) = await books.every_order()
    await canceled(books, entry.order.id)
    books.venue.answer = VenueReport(state=_S.FILLED, order="99", deals=(dealt("", order="99"),))
    await books.dispatcher.handle(books.row(entry.order.id, Command.CANCEL))
    after = await books.entry(entry.order.id)
    assert (after.state, after.filled_volume) == (_S.FILLED, VOLUME)
    assert [fill.order for fill in await books.fills()] == [entry.order.id]


async def test_somebody_elses_order_is_adopted_once_and_a_break(books: Reconciled) -> None:
    books.venue.orders = [shown("", _S.ACCEPTED, ticket="99")]
    for _ in range(2):
        assert await books.look()
    (adopted,) = await books.every_order()
    assert (adopted.external, adopted.venue_order, adopted.state) == (True, "99", _S.ACCEPTED)
    assert await books.breaks() == [BreakSort.EXTERNAL]


async def test_somebody_elses_deal_is_a_fill_of_no_order(books: Reconciled) -> None:
    books.venue.deals, books.venue.positions = [dealt("", order="99")], [held()]
    assert await books.look()
    assert [fill.order for fill in await books.fills()] == [None]
    assert await books.breaks() == []


# -- quantity --------------------------------------------------------------------------------------------


async def test_a_position_no_deal_explains_is_a_break_and_taken(books: Reconciled) -> None:
    books.venue.positions = [held(HALF)]
    assert await books.look()
    assert [one.volume for one in await books.holdings()] == [HALF]
    assert await books.breaks() == [BreakSort.QUANTITY]
    assert await books.look()
    assert await books.breaks() == [BreakSort.QUANTITY], "what has been taken differs no more"


async def test_what_was_there_before_us_is_external_not_a_wrong_quantity(books: Reconciled) -> None:
    async with books.hub["postgres"].acquire() as connection:
        await connection.execute(
            "update account_books set reconciled_at = null where account = $1", books.name
        )
    books.venue.positions = [held(HALF)]
    assert await books.look()
    assert await books.breaks() == [BreakSort.EXTERNAL]


async def test_hedging_positions_are_kept_apart(settings: Settings) -> None:
    async with reconciled(settings, hedging=True) as books:
        bought, back = dealt("", ticket="1", order="98"), dealt("", HALF, ticket="2", order="99")
        books.venue.deals = [bought, sold(back, position="2")]
        books.venue.positions = [held(ticket="1"), held(HALF, ticket="2", side=Side.SELL)]
        assert await books.look()
        assert [(one.ticket, one.side, one.volume) for one in await books.holdings()] == [
            ("1", Side.BUY, VOLUME),
            ("2", Side.SELL, HALF),
        ]
        assert await books.breaks() == []


# -- sent, and nobody knows ------------------------------------------------------------------------------


async def test_a_sender_is_given_its_time(books: Reconciled) -> None:
    entry = await books.order(_S.SENDING, OrderType.MARKET)
    await books.later(14)
    assert await books.look()
    assert (await books.entry(entry.order.id)).state is _S.SENDING


async def test_the_order_of_a_dead_sender_is_unknown_with_an_alert(
    books: Reconciled, alerts: LogCapture
) -> None:
    entry = await books.order(_S.SENDING, OrderType.MARKET)
    await books.later(16)
    assert await books.look()
    assert (await books.entry(entry.order.id)).state is _S.UNKNOWN
    (alert,) = [one for one in alerts.entries if one["event"] == "order.unknown"]
    assert (alert["log_level"], alert["order"]) == ("error", entry.order.id)


async def test_a_dead_sender_is_told_of_also_while_the_venue_is_away(
    books: Reconciled, alerts: LogCapture
) -> None:
    entry = await books.order(_S.SENDING, OrderType.MARKET)
    books.venue.away = True
    for seconds, state in ((14, _S.SENDING), (2, _S.UNKNOWN)):
        await books.later(seconds)
        with pytest.raises(Unavailable):
            await books.look()
        assert (await books.entry(entry.order.id)).state is state
    assert [one["order"] for one in alerts.entries if one["event"] == "order.unknown"] == [entry.order.id]


@pytest.mark.parametrize("state", [_S.SENDING, _S.UNKNOWN])
async def test_deals_tell_what_became_of_it(books: Reconciled, state: OrderState) -> None:
    entry = await books.order(state, OrderType.MARKET)
    books.venue.deals, books.venue.positions = [dealt(entry.order.id)], [held()]
    assert await books.look()
    after = await books.entry(entry.order.id)
    assert (after.state, after.filled_volume) == (_S.FILLED, VOLUME)


async def test_a_market_order_that_never_arrived_expires(books: Reconciled) -> None:
    entry = await books.order(_S.UNKNOWN, OrderType.MARKET)
    assert await books.look()
    await books.later(31)
    assert await books.look()
    after = await books.entry(entry.order.id)
    assert (after.state, after.code) == (_S.EXPIRED, "NEVER_ARRIVED")
    assert await books.commands(entry.order.id) == []


async def test_a_pending_order_that_never_arrived_is_sent_once_more(books: Reconciled) -> None:
    entry = await books.order(_S.UNKNOWN)
    assert await books.look()
    assert (await books.entry(entry.order.id)).state is _S.UNKNOWN, "one look is no proof"
    await books.later(31)
    for _ in range(2):
        assert await books.look()
    assert (await books.entry(entry.order.id)).state is _S.QUEUED
    assert await books.commands(entry.order.id) == [Command.SEND]


async def test_little_patience_is_no_proof_while_an_order_may_still_be_on_its_way(books: Reconciled) -> None:
    entry = await books.order(_S.UNKNOWN)
    hasty = replace(books.reconciler, patience=Patience(sending_s=0.1, absent_s=0.1))
    account = await books.account()
    assert await hasty.reconcile(account)
    await books.later(ARRIVED_WITHIN_S - 2)
    assert await hasty.reconcile(account)
    assert (await books.entry(entry.order.id)).state is _S.UNKNOWN
    await books.later(2)
    assert await hasty.reconcile(account)
    assert (await books.entry(entry.order.id)).state is _S.QUEUED


# -- after the end ---------------------------------------------------------------------------------------


async def test_a_cancelled_order_may_still_be_filled(books: Reconciled) -> None:
    entry = await books.order(_S.CANCELED)
    books.venue.deals, books.venue.positions = [dealt("")], [held()]
    assert await books.look()
    after = await books.entry(entry.order.id)
    assert (after.state, after.filled_volume) == (_S.FILLED, VOLUME)
    assert await books.words(entry.order.id) == ["order.filled_after_end"]


async def test_what_expired_unseen_and_was_filled_all_the_same_is_told_with_an_alert(
    books: Reconciled, alerts: LogCapture
) -> None:
    entry = await books.order(_S.UNKNOWN, OrderType.MARKET)
    assert await books.look()
    await books.later(31)
    assert await books.look()
    books.venue.deals, books.venue.positions = [dealt(entry.order.id)], [held()]
    assert await books.look()
    after = await books.entry(entry.order.id)
    assert (after.state, after.filled_volume) == (_S.EXPIRED, VOLUME)
    assert [fill.order for fill in await books.fills()] == [entry.order.id]
    (alert,) = [one for one in alerts.entries if one["event"] == "order.filled_after_end"]
    assert (alert["log_level"], alert["order"]) == ("error", entry.order.id)


# -- one beside the other --------------------------------------------------------------------------------


async def test_a_view_older_than_what_is_known_changes_nothing(books: Reconciled) -> None:
    """The venue was asked before an order was sent, and its answer comes after."""
    entry = await books.order(_S.QUEUED, OrderType.MARKET)
    books.venue.may_show.clear()
    books.venue.shown.clear()
    looking = asyncio.create_task(books.look())
    await books.venue.shown.wait()
    books.venue.answer = VenueReport(state=_S.FILLED, order=TICKET, deals=(dealt(entry.order.id),))
    await books.dispatcher.send(TENANT, entry.order.id)
    books.venue.may_show.set()
    assert not await looking
    assert (await books.entry(entry.order.id)).state is _S.FILLED
    assert [one.volume for one in await books.holdings()] == [VOLUME]


@pytest.mark.parametrize("answer", ["changed", "filled in part"])
async def test_a_late_answer_to_a_change_does_not_undo_that_it_is_being_cancelled(
    books: Reconciled, answer: str
) -> None:
    entry = await books.order(_S.PENDING_MODIFY)
    books.venue.may_answer.clear()
    deals = () if answer == "changed" else (dealt(entry.order.id, HALF),)
    books.venue.answer = VenueReport(state=_S.ACCEPTED, order=TICKET, deals=deals)
    row = books.row(entry.order.id, Command.MODIFY, OrderChange(price=Decimal("1.2")))
    modifying = asyncio.create_task(books.dispatcher.handle(row))
    await books.venue.asked.wait()
    await canceled(books, entry.order.id)
    books.venue.may_answer.set()
    await modifying
    after = await books.entry(entry.order.id)
    assert after.state is _S.PENDING_CANCEL
    assert after.order.price == Decimal("1.2"), "it was changed before it is taken back"
    assert await books.commands(entry.order.id) == [Command.CANCEL]


async def test_a_late_answer_to_sending_does_not_undo_that_it_is_being_cancelled(books: Reconciled) -> None:
    entry = await books.order(_S.QUEUED)
    books.venue.may_answer.clear()
    books.venue.answer = VenueReport(state=_S.ACCEPTED, order=TICKET, deals=(dealt(entry.order.id, HALF),))
    sending = asyncio.create_task(books.dispatcher.send(TENANT, entry.order.id))
    await books.venue.asked.wait()
    books.venue.orders = [shown(entry.order.id, _S.ACCEPTED)]
    assert await books.look()
    await canceled(books, entry.order.id)
    books.venue.may_answer.set()
    await sending
    after = await books.entry(entry.order.id)
    assert (after.state, after.filled_volume) == (_S.PENDING_CANCEL, HALF)
    assert await books.commands(entry.order.id) == [Command.CANCEL]


async def test_a_deal_of_what_is_being_cancelled_does_not_undo_that(books: Reconciled) -> None:
    """The venue shows the deal before it shows what became of the order."""
    entry = await books.order(_S.PENDING_CANCEL)
    books.venue.deals, books.venue.positions = [dealt(entry.order.id, HALF)], [held(HALF)]
    assert await books.look()
    after = await books.entry(entry.order.id)
    assert (after.state, after.filled_volume) == (_S.PENDING_CANCEL, HALF)


async def test_a_venue_that_does_not_cancel_lets_the_order_work_on(books: Reconciled) -> None:
    entry = await books.order(_S.PENDING_CANCEL)
    books.venue.answer = VenueReport(state=_S.ACCEPTED, order=TICKET, code="FROZEN", reason="too near")
    await books.dispatcher.handle(books.row(entry.order.id, Command.CANCEL))
    after = await books.entry(entry.order.id)
    assert (after.state, after.code) == (_S.ACCEPTED, "FROZEN")


async def canceled(books: Reconciled, order_id: str) -> None:
    ledger = books.hub["order_ledger"]
    changes = OrderChanges(ledger=ledger, settlement=books.settlement, entrance=None)  # type: ignore[arg-type]
    async with ledger.work(TENANT) as work:
        await changes.cancel(work, order_id, actor="client:demo")
