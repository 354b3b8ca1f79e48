"""Where orders come in: what is known of an account before it is locked, and what counts once it is."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from decimal import Decimal

import msgspec
import pytest

from core.errors.exceptions import NotFound
from core.model.ledger import DeskFacts
from core.model.orders import OrderState, OrderType, Side
from core.settings import Settings
from tests.engines import House, new_databases
from tests.ledger_floors import OURS, PRICE, THEIRS, VOLUME, Books, opened_books
from tests.trading_floors import INSTRUMENT, SYMBOL, account, keep_records

_S = OrderState
WAITING_S_MAX = 20.0
WINDOW_MS = 60_000


@pytest.fixture(scope="module")
def settings(house: House) -> Settings:
    settings = new_databases(house)
    asyncio.run(keep_records(settings, OURS, {}))
    return settings


@pytest.fixture
async def books(settings: Settings) -> AsyncIterator[Books]:
    async with opened_books(settings) as opened:
        yield opened


async def facts(books: Books, window_ms: int = WINDOW_MS, **changes: object) -> DeskFacts:
    """Return what is known when an order comes in."""
    found = [one for one in await books.ledger.accounts() if (one.tenant, one.id) == (OURS, books.name)]
    async with books.work() as work:
        return await books.ledger.facts(work, books.entry(**changes).order, found[0], window_ms)


# -- listing ---------------------------------------------------------------------------------------------


async def test_what_is_listed_is_the_account_its_source_and_the_symbol(books: Books) -> None:
    async with books.work() as work:
        listing = await books.ledger.listing(work, books.name, SYMBOL)
        nothing = await books.ledger.listing(work, books.name, "XAUUSD")
    assert listing.account is not None
    assert (listing.account.id, listing.account.tenant, listing.reachable) == (books.name, OURS, True)
    assert listing.instruments == (INSTRUMENT,)
    assert nothing.instruments == ()


async def test_a_pair_that_turns_the_symbols_currency_into_the_accounts_is_listed_too(books: Books) -> None:
    name = uuid.uuid4().hex[:12]
    in_francs = account(currency="CHF")
    await keep_records(books.settings, OURS, {name: in_francs}, instrument=False)
    pair = msgspec.structs.replace(
        INSTRUMENT, symbol="USDCHF", base_currency="USD", profit_currency="CHF", margin_currency="USD"
    )
    other = msgspec.structs.replace(INSTRUMENT, symbol="USDJPY", base_currency="USD", profit_currency="JPY")
    async with books.work() as work:
        for instrument in (pair, other):
            columns = [
                "symbol",
                "description",
                "base_currency",
                "profit_currency",
                "margin_currency",
                "digits",
            ]
            columns += ["tick_size", "contract_size", "volume_min", "volume_max", "volume_step"]
            places = ", ".join(f"${number}" for number in range(2, len(columns) + 2))
            await work.connection.execute(
                f"insert into instruments (tenant, id, version, {', '.join(columns)})"
                f" values ('{OURS}', lower($2), $1, {places})",
                "1",
                *(getattr(instrument, column) for column in columns),
            )
        listing = await books.ledger.listing(work, name, SYMBOL)
        await work.connection.execute("delete from instruments where symbol like 'USD%'")
    assert {one.symbol for one in listing.instruments} == {SYMBOL, "USDCHF"}


async def test_an_account_without_a_venue_is_listed_as_none(books: Books) -> None:
    await keep_records(books.settings, OURS, {f"{books.name}-n": account(venue="none")}, instrument=False)
    await keep_records(books.settings, OURS, {f"{books.name}-a": account(source=THEIRS)}, instrument=False)
    async with books.work() as work:
        assert (await books.ledger.listing(work, f"{books.name}-n", SYMBOL)).account is None
        assert not (await books.ledger.listing(work, f"{books.name}-a", SYMBOL)).reachable


async def test_nothing_of_another_tenant_is_listed(books: Books) -> None:
    alone = f"{books.name}-t"
    await keep_records(books.settings, THEIRS, {alone: account(source=THEIRS)}, instrument=False)
    async with books.work(THEIRS) as work:
        assert (await books.ledger.listing(work, books.name, SYMBOL)).instruments == ()
    async with books.work() as work:
        with pytest.raises(NotFound) as missing:
            await books.ledger.listing(work, alone, SYMBOL)
    assert missing.value.code == "ACCOUNT_NOT_FOUND"


async def test_listing_locks_nothing(books: Books) -> None:
    async with books.work() as work, asyncio.timeout(WAITING_S_MAX):
        await books.ledger.lock_account(work, books.name)
        async with books.work() as other:
            await books.ledger.listing(other, books.name, SYMBOL)


# -- facts -----------------------------------------------------------------------------------------------


async def test_two_orders_of_one_account_are_judged_one_after_the_other(books: Books) -> None:
    async with books.work() as work:
        await books.ledger.lock_account(work, books.name)
        second = asyncio.create_task(facts(books))
        async with asyncio.timeout(WAITING_S_MAX):
            while not await books.rows(
                "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
            ):
                await asyncio.sleep(0.01)
        await books.ledger.add(work, books.entry())
    assert (await second).submits == 1


async def test_an_account_nobody_has_traded_on_is_flat(books: Books) -> None:
    found = await facts(books)
    assert (found.exposure.position, found.exposure.working_buys, found.exposure.working_sells) == (0, 0, 0)
    assert (found.submits, found.twins, found.id_used) == (0, 0, False)
    assert (found.margin_moving, found.notional_moving) == (0, 0)
    (clock,) = await books.rows("select extract(epoch from clock_timestamp())::float8 * 1000 as ms")
    assert abs(found.now_ms - clock["ms"]) < WINDOW_MS


async def test_what_works_and_what_is_held_counts_as_exposure_of_its_symbol(books: Books) -> None:
    await books.kept(volume=Decimal("0.3"))
    await books.kept(volume=Decimal("0.2"), symbol="XAUUSD")
    await books.walked(_S.SENDING, _S.UNKNOWN, side=Side.SELL, volume=Decimal("0.5"))
    await books.walked(_S.SENDING, _S.REJECTED, volume=Decimal(7))
    part = await books.walked(_S.SENDING, volume=Decimal(1))
    async with books.work() as work:
        filled = Decimal("0.4")
        await books.ledger.move(work, part, _S.PARTIALLY_FILLED, what="a", filled_volume=filled)
        fill = books.fill("1", part.order.id, volume=filled)
        await books.ledger.record_fills(work, [fill])
        await work.connection.execute(
            "insert into positions (tenant, account, ticket, symbol, side, volume, price_open, order_id,"
            " opened_at_ms) values ($1, $2, '1', $3, 'sell', 2, 1.1, '', 0)",
            OURS,
            books.name,
            SYMBOL,
        )
    exposure = (await facts(books)).exposure
    assert (exposure.position, exposure.working_buys, exposure.working_sells) == (
        Decimal(-2),
        Decimal("0.9"),
        Decimal("0.5"),
    )


async def test_what_is_held_and_works_of_the_position_an_order_names_is_told_apart(books: Books) -> None:
    await books.kept(volume=Decimal("0.3"), position="1")
    await books.kept(volume=Decimal("0.2"), position="2")
    await books.kept(volume=Decimal("0.1"))
    async with books.work() as work:
        for ticket, volume in (("1", 2), ("2", 5)):
            await work.connection.execute(
                "insert into positions (tenant, account, ticket, symbol, side, volume, price_open, order_id,"
                " opened_at_ms) values ($1, $2, $3, $4, 'sell', $5, 1.1, '', 0)",
                OURS,
                books.name,
                ticket,
                SYMBOL,
                volume,
            )
    named = (await facts(books, position="1")).named
    assert (named.position, named.working_buys, named.working_sells) == (-2, Decimal("0.3"), 0)
    assert (await facts(books)).named.position == 0


async def test_margin_of_orders_the_venue_may_not_have_heard_of_is_moving(books: Books) -> None:
    for way in [(), (_S.SENDING,), (_S.SENDING, _S.REJECTED)]:
        entry = await books.walked(*way)
        async with books.work() as work:
            await books.ledger.move(
                work, entry, entry.state, what="a", margin_needed=Decimal(10), notional=Decimal(1_000)
            )
    found = await facts(books)
    assert (found.margin_moving, found.notional_moving) == (20, 2_000)


@pytest.mark.parametrize(
    ("changes", "twins"),
    [
        ({}, 1),
        ({"side": Side.SELL}, 0),
        ({"volume": 2 * VOLUME}, 0),
        ({"price": PRICE * 2}, 0),
        ({"type": OrderType.MARKET, "price": None}, 0),
        ({"symbol": "XAUUSD"}, 0),
    ],
)
async def test_a_twin_is_like_the_order_in_everything(
    books: Books, changes: dict[str, object], twins: int
) -> None:
    await books.kept()
    await books.kept(_S.DENIED)
    await books.kept(tenant=THEIRS)
    found = await facts(books, **changes)
    assert (found.submits, found.twins) == (2, twins)
    assert (await facts(books, 0, **changes)).twins == 0


async def test_a_client_order_id_is_used_once_unless_it_was_denied(books: Books) -> None:
    await books.kept(_S.DENIED, client_order_id="a")
    assert not (await facts(books, client_order_id="a")).id_used
    await books.kept(client_order_id="a")
    assert (await facts(books, client_order_id="a")).id_used
    assert not (await facts(books)).id_used


# -- add -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "what", "commands"),
    [(_S.QUEUED, "order.submitted", ["send"]), (_S.DENIED, "order.denied", [])],
)
async def test_a_new_order_comes_with_its_event_and_what_is_to_be_done(
    books: Books, state: OrderState, what: str, commands: list[str]
) -> None:
    entry = await books.kept(state, strategy="s", stop_loss=Decimal("1.05"))
    async with books.work() as work:
        assert await books.ledger.found(work, entry.order.id) == entry
    assert entry.order.submitted_at_ms == entry.updated_at_ms > 0
    (event,) = await books.hub["trading_reads"].events(OURS, entry.order.id)
    assert (event.seq, event.old_state, event.new_state, event.what) == (1, _S.CREATED, state, what)
    assert await books.commands(entry.order.id) == commands
