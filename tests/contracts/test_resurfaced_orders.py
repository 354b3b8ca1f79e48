"""Orders that are over here and turn up at their venue; and clocks of others, which must hide no deal."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import structlog
from structlog.testing import LogCapture

from core.errors.exceptions import Unavailable
from core.model.ledger import BreakSort
from core.model.orders import OrderState
from core.settings import Settings
from core.trading import strays
from core.trading.hindsight import FAR_INTERVAL_S, FAR_MS, FAR_PAUSE_S, OVERLAP_MS, Hindsight
from tests.engines import House, new_databases
from tests.reconciled_accounts import TICKET, VOLUME, Reconciled, dealt, held, reconciled, shown

HOUR_MS = 3_600_000
_S = OrderState


@pytest.fixture(scope="module")
def settings(house: House) -> Settings:
    return new_databases(house)


@pytest.fixture
def alerts(monkeypatch: pytest.MonkeyPatch) -> LogCapture:
    captured = LogCapture()
    monkeypatch.setattr(strays, "log", structlog.wrap_logger(None, [captured], structlog.BoundLogger))
    return captured


@pytest.fixture(params=[False, True], ids=["netting", "hedging"])
async def books(settings: Settings, request: pytest.FixtureRequest) -> AsyncIterator[Reconciled]:
    async with reconciled(settings, hedging=request.param) as opened:
        yield opened


async def given_up(books: Reconciled) -> str:
    """Return an order that works here and not at the venue, until it is cancelled for that."""
    entry = await books.order(_S.ACCEPTED)
    assert await books.look()
    await books.later(31)
    assert await books.look()
    after = await books.entry(entry.order.id)
    assert (after.state, after.code) == (_S.CANCELED, "MISSING_AT_VENUE")
    await books.later(31)
    return entry.order.id


async def test_one_that_works_there_is_told_once_and_taken_back(
    books: Reconciled, alerts: LogCapture
) -> None:
    order_id = await given_up(books)
    books.venue.orders = [shown(order_id, _S.ACCEPTED)]
    assert await books.look()
    assert await books.look()
    assert books.venue.cancelled == [TICKET, TICKET], "asked until it is gone"
    assert (await books.words(order_id))[-1] == "order.resurfaced"
    after = await books.entry(order_id)
    assert (after.state, after.code) == (_S.CANCELED, "WORKING_AT_VENUE")
    assert await books.breaks() == [BreakSort.MISSING, BreakSort.RESURFACED]
    assert len([one for one in alerts.entries if one["event"] == "order.resurfaced"]) == 1
    books.venue.orders = []
    assert await books.look()
    assert len(books.venue.cancelled) == 2
    assert len(await books.every_order()) == 1, "nobody else's order was made of it"


async def test_one_whose_ticket_nobody_knew_is_known_by_its_tag(books: Reconciled) -> None:
    entry = await books.order(_S.UNKNOWN)
    async with books.hub["order_ledger"].work("demo") as work:
        locked = await books.hub["order_ledger"].locked(work, entry.order.id)
        await books.settlement.move(work, locked, _S.CANCELED, what="order.prepared")
    await books.later(31)
    books.venue.orders = [shown(entry.order.id, _S.ACCEPTED, ticket="71")]
    assert await books.look()
    assert books.venue.cancelled == ["71"]
    assert (await books.entry(entry.order.id)).venue_order == "71"


async def test_one_that_was_filled_there_is_filled_here_with_an_alert(
    books: Reconciled, alerts: LogCapture
) -> None:
    order_id = await given_up(books)
    books.venue.deals, books.venue.positions = [dealt("")], [held()]
    assert await books.look()
    after = await books.entry(order_id)
    assert (after.state, after.filled_volume, after.code) == (_S.FILLED, VOLUME, "")
    assert [one.volume for one in await books.holdings()] == [VOLUME]
    assert [fill.order for fill in await books.fills()] == [order_id]
    assert await books.breaks() == [BreakSort.MISSING, BreakSort.RESURFACED]
    assert [one["log_level"] for one in alerts.entries] == ["error"]


async def test_one_that_is_filled_before_it_is_taken_back_is_filled_here(books: Reconciled) -> None:
    order_id = await given_up(books)
    books.venue.orders = [shown(order_id, _S.ACCEPTED)]
    assert await books.look()
    books.venue.orders, books.venue.deals, books.venue.positions = [], [dealt(order_id)], [held()]
    assert await books.look()
    assert (await books.entry(order_id)).state is _S.FILLED
    assert [one.volume for one in await books.holdings()] == [VOLUME]


async def test_a_venue_that_shows_for_a_moment_what_was_cancelled_is_not_told_again(
    books: Reconciled,
) -> None:
    entry = await books.order(_S.CANCELED)
    books.venue.orders = [shown(entry.order.id, _S.ACCEPTED)]
    assert await books.look()
    assert (books.venue.cancelled, await books.breaks()) == ([], [])


async def test_one_that_the_venue_never_gives_up_after_a_cancellation_is_taken_back(
    books: Reconciled,
) -> None:
    entry = await books.order(_S.CANCELED)
    await books.later(6)
    books.venue.orders = [shown(entry.order.id, _S.ACCEPTED)]
    assert await books.look()
    assert books.venue.cancelled == [TICKET]
    assert await books.breaks() == [BreakSort.RESURFACED]


async def test_a_cancellation_that_came_too_late_surprises_nobody(
    books: Reconciled, alerts: LogCapture
) -> None:
    await books.order(_S.CANCELED)
    books.venue.deals, books.venue.positions = [dealt("")], [held()]
    assert await books.look()
    assert (await books.breaks(), alerts.entries) == ([], [])


# -- clocks ----------------------------------------------------------------------------------------------


async def now_ms(books: Reconciled) -> int:
    async with books.hub["order_ledger"].work("demo") as work:
        return int(await books.hub["order_ledger"].now_ms(work))


async def deals_until_ms(books: Reconciled) -> int:
    async with books.hub["postgres"].acquire() as connection:
        return int(
            await connection.fetchval(
                "select deals_until_ms from account_books where account = $1", books.name
            )
        )


async def test_a_clock_that_is_ahead_moves_nothing_beyond_ours(books: Reconciled) -> None:
    reconciler, account = books.reconciler, await books.account()
    for ahead_ms in (0, 10 * HOUR_MS, 0):
        books.venue.at_ms = await now_ms(books) + ahead_ms
        assert await reconciler.reconcile(account)
        assert await deals_until_ms(books) <= await now_ms(books)
    # What is dated by the clock that was put right again is asked for.
    assert await reconciler.reconcile(account)
    assert books.venue.asked_since_ms[-1] <= await now_ms(books) - OVERLAP_MS


async def test_a_clock_that_is_behind_takes_the_beginning_along(books: Reconciled) -> None:
    reconciler, account = books.reconciler, await books.account()
    books.venue.at_ms = await now_ms(books)
    assert await reconciler.reconcile(account)
    books.venue.at_ms -= HOUR_MS
    for _ in range(2):
        assert await reconciler.reconcile(account)
    assert books.venue.asked_since_ms[-1] == books.venue.at_ms - OVERLAP_MS


async def test_a_clock_that_was_ahead_before_is_forgotten_with_the_next_look(books: Reconciled) -> None:
    async with books.hub["postgres"].acquire() as connection:
        await connection.execute(
            "update account_books set deals_until_ms = 4102444800000 where account = $1", books.name
        )
    books.venue.at_ms = await now_ms(books)
    assert await books.look()
    assert await deals_until_ms(books) == books.venue.at_ms


async def test_the_first_look_goes_far_back_and_the_next_ones_do_not(books: Reconciled) -> None:
    books.venue.at_ms = await now_ms(books)
    assert await books.look()
    reconciler, account = books.reconciler, await books.account()
    for _ in range(2):
        assert await reconciler.reconcile(account)
    first, second = books.venue.asked_since_ms[-2:]
    assert (first, second) == (books.venue.at_ms - FAR_MS, books.venue.at_ms - OVERLAP_MS)


async def test_a_deal_that_was_dated_too_early_is_found_once_its_position_is_wondered_about(
    books: Reconciled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.trading.hindsight.FAR_PAUSE_S", 0.0)
    entry = await books.order(_S.ACCEPTED)
    books.venue.orders = [shown(entry.order.id, _S.ACCEPTED)]
    reconciler, account = books.reconciler, await books.account()
    books.venue.at_ms = await now_ms(books)
    assert await reconciler.reconcile(account)
    # Filled, by a trade server whose clock was set back: the deal is not among those of the last minute.
    early = replace(dealt(entry.order.id), at_ms=books.venue.at_ms - HOUR_MS)
    books.venue.orders, books.venue.ended = [], [shown(entry.order.id, _S.FILLED)]
    books.venue.positions = [held()]
    assert await reconciler.reconcile(account)
    assert await books.breaks() == [BreakSort.QUANTITY]
    assert (await books.entry(entry.order.id)).state is _S.ACCEPTED
    books.venue.deals = [early]
    assert await reconciler.reconcile(account)
    assert books.venue.asked_since_ms[-1] <= early.at_ms
    assert (await books.entry(entry.order.id)).state is _S.FILLED
    assert [one.volume for one in await books.holdings()] == [VOLUME]


async def test_a_venue_that_cannot_show_so_much_is_asked_for_less(
    books: Reconciled, monkeypatch: pytest.MonkeyPatch
) -> None:
    show = books.venue.view

    async def bounded(account, since_ms):
        if since_ms < books.venue.at_ms - OVERLAP_MS:
            raise Unavailable("too much", code="VIEW_TOO_LARGE")
        return await show(account, since_ms)

    books.venue.at_ms = await now_ms(books)
    assert await books.look()
    monkeypatch.setattr(books.venue, "view", bounded)
    assert await books.look()


def test_far_looks_are_seldom_and_after_something_strange_soon_but_not_without_pause() -> None:
    hindsight, account = Hindsight(), ("demo", "a")
    assert hindsight.is_far(account, 0.0)
    hindsight.looked(account, 0.0)
    assert not hindsight.is_far(account, FAR_INTERVAL_S - 1)
    assert hindsight.is_far(account, FAR_INTERVAL_S)
    hindsight.wonder(account)
    assert not hindsight.is_far(account, FAR_PAUSE_S - 1)
    assert hindsight.is_far(account, FAR_PAUSE_S)
