"""Orders on their way through a real Redis: what surely was not asked is told from what nobody can say."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
import redis

from core.adapters.redis import terminal_orders
from core.adapters.redis.terminal_orders import TerminalOrders, open_terminal_orders
from core.adapters.redis.terminal_relay import RedisTerminalRelay, holder_key
from core.errors.exceptions import Misconfigured, Unavailable, UnknownOutcome
from core.infrastructure.central_hub import open_hub
from core.messages.order_seals import digest_of, reply_key, sealed_reply, token_hash
from core.messages.terminal_orders import (
    CommandKind,
    Outcome,
    RelayedCommand,
    TerminalCommand,
    TerminalReply,
    decode_command,
    encode_relayed,
    encode_reply,
    refused,
    unknown,
)
from core.model.orders import OrderState
from core.model.venues import OrderChange, VenueReport, VenueView
from core.settings import Settings
from tests.bridges import TOKEN
from tests.engines import House
from tests.order_keys import KEYS, signing
from tests.orders import ACCOUNT, SOURCE, TENANT, make_order

REPLY_KEY = reply_key(token_hash(TOKEN))
REPORT = VenueReport(state=OrderState.FILLED, order="7", retcode=10_009)
VIEW = VenueView(at_ms=1, balance=Decimal("1.50"), equity=None, margin=Decimal(0), margin_free=Decimal("1.5"))


class Ledger:
    """Knows one source's token."""

    async def token_hash(self, _source: str) -> str:
        return token_hash(TOKEN)


@dataclass
class Way:
    """Both ends: the venue of a worker, and a bridge's relay with the test in the bridge's place."""

    venue: TerminalOrders
    relay: RedisTerminalRelay
    redis: redis.Redis
    seen: dict[str, RelayedCommand] = field(default_factory=dict)

    async def taken(self) -> TerminalCommand:
        async with asyncio.timeout(10):
            while True:
                for relayed in await self.relay.take():
                    return self.opened(relayed)

    def opened(self, relayed: RelayedCommand) -> TerminalCommand:
        command = decode_command(KEYS.opened(relayed.sealed))
        self.seen[command.id] = relayed
        return command

    async def answer(self, command: TerminalCommand, reply: TerminalReply, key: bytes = REPLY_KEY) -> None:
        relayed = self.seen[command.id]
        sealed = sealed_reply(key, digest_of(relayed.sealed), encode_reply(reply))
        await self.relay.answer(relayed.reply_to, sealed)

    async def answered(self, make: Any) -> TerminalCommand:
        """Take a command and answer it with what `make` makes of it."""
        command = await self.taken()
        await self.answer(command, make(command))
        return command


@pytest.fixture
def own_settings(queue_house: House) -> Settings:
    return queue_house.settings


@asynccontextmanager
async def opened(settings: Settings, client: redis.Redis, *, announced: bool = True) -> AsyncIterator[Way]:
    with TemporaryDirectory() as directory:
        ours = signing(settings, Path(directory))
        async with (
            open_hub(ours, {"terminal_relay"}, checked=False) as hub,
            open_terminal_orders(ours, {"sources": Ledger()}) as venue,
        ):
            way = Way(venue, hub["terminal_relay"], client)
            if announced:
                await way.relay.announce([SOURCE])
            yield way


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal_orders, "TAKE_TIMEOUT_S", 0.4)
    monkeypatch.setattr(terminal_orders, "ANSWER_TIMEOUT_S", 1.2)


def done(command: TerminalCommand, **fields: Any) -> TerminalReply:
    return TerminalReply(id=command.id, outcome=Outcome.DONE, **fields)


async def test_a_command_arrives_as_it_was_asked_and_its_reply_comes_back(own_settings, queue_valkey):
    async with opened(own_settings, queue_valkey) as way:
        asked = make_order(stop_loss=Decimal("1.07500"))
        asking = asyncio.create_task(way.venue.send(ACCOUNT, asked))
        command = await way.answered(lambda command: done(command, report=REPORT))
        assert await asking == REPORT
        assert (command.kind, command.tenant, command.source) == (CommandKind.SEND, TENANT, SOURCE)
        assert command.order == asked
        assert 4_000 < command.valid_until_ms - time.time() * 1_000 <= 5_000


async def test_every_sort_of_question_has_its_answer(own_settings, queue_valkey):
    change = OrderChange(price=Decimal("1.1"))
    async with opened(own_settings, queue_valkey) as way:
        asking = asyncio.create_task(way.venue.cancel(ACCOUNT, "7"))
        assert (await way.answered(lambda command: done(command, report=REPORT))).ticket == "7"
        assert await asking == REPORT
        asking = asyncio.create_task(way.venue.modify(ACCOUNT, "7", change))
        assert (await way.answered(lambda command: done(command, report=REPORT))).change == change
        assert await asking == REPORT
        asking = asyncio.create_task(way.venue.view(ACCOUNT, 123))
        assert (await way.answered(lambda command: done(command, view=VIEW))).since_ms == 123
        assert await asking == VIEW


async def test_a_first_look_does_not_ask_for_years(own_settings, queue_valkey):
    async with opened(own_settings, queue_valkey) as way:
        asking = asyncio.create_task(way.venue.view(ACCOUNT, 0))
        command = await way.answered(lambda command: done(command, view=VIEW))
        assert 6 < (time.time() * 1_000 - command.since_ms) / 86_400_000 < 8
        await asking


async def test_without_a_bridge_nobody_was_asked(own_settings, queue_valkey):
    async with opened(own_settings, queue_valkey, announced=False) as way:
        with pytest.raises(Unavailable) as error:
            await way.venue.send(ACCOUNT, make_order())
        assert error.value.code == "TERMINAL_NOT_CONNECTED"


async def test_what_is_not_taken_in_time_is_taken_back(own_settings, queue_valkey):
    async with opened(own_settings, queue_valkey) as way:
        with pytest.raises(Unavailable) as error:
            await way.venue.send(ACCOUNT, make_order())
        assert error.value.code == "TERMINAL_NOT_CONNECTED"
        assert await way.relay.take() == []


async def test_what_was_taken_and_not_answered_is_unknown(own_settings, queue_valkey):
    async with opened(own_settings, queue_valkey) as way:
        asking = asyncio.create_task(way.venue.send(ACCOUNT, make_order()))
        command = await way.taken()
        with pytest.raises(UnknownOutcome):
            await asking
        # A late answer is nobody's, and harms the next one as little.
        await way.answer(command, done(command, report=REPORT))
        asking = asyncio.create_task(way.venue.send(ACCOUNT, make_order()))
        await way.answered(lambda command: refused(command.id, "TERMINAL_BUSY", "busy"))
        with pytest.raises(Unavailable):
            await asking


async def test_a_view_that_is_not_answered_is_unavailable(own_settings, queue_valkey):
    async with opened(own_settings, queue_valkey) as way:
        asking = asyncio.create_task(way.venue.view(ACCOUNT, 1))
        await way.taken()
        with pytest.raises(Unavailable):
            await asking


@pytest.mark.parametrize(
    ("make", "expected"), [(refused, Unavailable), (unknown, UnknownOutcome)], ids=["refused", "unknown"]
)
async def test_the_bridges_word_is_passed_on(own_settings, queue_valkey, make, expected):
    async with opened(own_settings, queue_valkey) as way:
        asking = asyncio.create_task(way.venue.send(ACCOUNT, make_order()))
        await way.answered(lambda command: make(command.id, "SOME_CODE", "some reason"))
        with pytest.raises(expected) as error:
            await asking
        assert (error.value.code, error.value.public) == ("SOME_CODE", "some reason")


async def test_a_reply_without_a_report_is_an_unknown_outcome(own_settings, queue_valkey):
    async with opened(own_settings, queue_valkey) as way:
        asking = asyncio.create_task(way.venue.send(ACCOUNT, make_order()))
        await way.answered(done)
        with pytest.raises(UnknownOutcome):
            await asking


async def test_an_emptied_redis_leaves_an_unknown_outcome(own_settings, queue_valkey):
    async with opened(own_settings, queue_valkey) as way:
        asking = asyncio.create_task(way.venue.send(ACCOUNT, make_order()))
        await asyncio.sleep(0.1)
        queue_valkey.flushdb()
        with pytest.raises(UnknownOutcome):
            await asking


async def test_who_gives_up_takes_the_command_along(own_settings, queue_valkey):
    async with opened(own_settings, queue_valkey) as way:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await way.venue.send(ACCOUNT, make_order())
        assert await way.relay.take() == []


async def test_many_at_once_get_their_own_answers(own_settings, queue_valkey):
    async with opened(own_settings, queue_valkey) as way:
        asked = [make_order() for _ in range(40)]
        asking = [asyncio.create_task(way.venue.send(ACCOUNT, order)) for order in asked]
        commands: list[TerminalCommand] = []
        while len(commands) < len(asked):
            commands += [way.opened(relayed) for relayed in await way.relay.take()]
        for command in reversed(commands):
            assert command.order is not None
            report = VenueReport(state=OrderState.ACCEPTED, order=command.order.id)
            await way.answer(command, done(command, report=report))
        assert [report.order for report in await asyncio.gather(*asking)] == [order.id for order in asked]


async def test_more_than_may_wait_are_surely_not_asked(own_settings, queue_valkey, monkeypatch):
    monkeypatch.setattr(terminal_orders, "WAITING_MAX", 2)
    async with opened(own_settings, queue_valkey) as way:
        asking = [asyncio.create_task(way.venue.send(ACCOUNT, make_order())) for _ in range(4)]
        outcomes = await asyncio.gather(*asking, return_exceptions=True)
        assert all(isinstance(one, Unavailable) for one in outcomes)
        assert {one.code for one in outcomes} == {"TERMINAL_BUSY", "TERMINAL_NOT_CONNECTED"}
        assert await way.relay.take() == []


async def test_a_command_is_given_to_one_taker_only(own_settings, queue_valkey):
    async with opened(own_settings, queue_valkey) as way:
        asking = asyncio.create_task(way.venue.send(ACCOUNT, make_order()))
        both = await asyncio.gather(way.taken(), asyncio.wait_for(way.relay.take(), 5))
        assert both[1] == []
        with pytest.raises(UnknownOutcome):
            await asking


async def test_what_cannot_be_read_is_dropped_by_the_taker(own_settings, queue_valkey):
    async with opened(own_settings, queue_valkey) as way:
        inbox = queue_valkey.get(holder_key(SOURCE))
        fine = RelayedCommand(reply_to="a", sealed=b"whatever")
        queue_valkey.rpush(inbox, b"{", b"x" * 40_000, encode_relayed(fine))
        assert await way.relay.take() == [fine]


@pytest.mark.parametrize("forger", ["another source", "another command"])
async def test_an_answer_that_its_source_has_not_sealed_is_none(own_settings, queue_valkey, forger):
    async with opened(own_settings, queue_valkey) as way:
        asking = asyncio.create_task(way.venue.send(ACCOUNT, make_order()))
        command = await way.taken()
        lie = refused(command.id, "TERMINAL_BUSY", "nobody was asked, they say")
        if forger == "another source":
            await way.answer(command, lie, key=reply_key(token_hash("guessed")))
        else:
            relayed = way.seen[command.id]
            sealed = sealed_reply(REPLY_KEY, digest_of(b"another"), encode_reply(lie))
            await way.relay.answer(relayed.reply_to, sealed)
        # The true one still counts.
        await way.answer(command, done(command, report=REPORT))
        assert await asking == REPORT


async def test_without_a_true_answer_a_lie_leaves_an_unknown_outcome(own_settings, queue_valkey):
    async with opened(own_settings, queue_valkey) as way:
        asking = asyncio.create_task(way.venue.send(ACCOUNT, make_order()))
        command = await way.taken()
        await way.answer(command, refused(command.id, "TERMINAL_BUSY", "a lie"), key=b"x" * 32)
        with pytest.raises(UnknownOutcome):
            await asking


async def test_a_worker_without_a_key_asks_nobody(own_settings, queue_valkey):
    async with open_terminal_orders(own_settings, {"sources": Ledger()}) as venue:
        with pytest.raises(Unavailable) as error:
            await venue.send(ACCOUNT, make_order())
        assert error.value.code == "ORDER_KEY_MISSING"


@pytest.mark.parametrize("content", ["", "{}", '{"keys":[]}', '{"keys":[{"d":"AA"}]}'])
async def test_a_file_that_holds_no_key_stops_the_worker(own_settings, tmp_path, content):
    file = tmp_path / "orders.json"
    file.write_text(content)
    trading = msgspec.structs.replace(own_settings.trading, key_file=str(file))
    with pytest.raises(Misconfigured):
        async with open_terminal_orders(
            msgspec.structs.replace(own_settings, trading=trading), {"sources": None}
        ):
            pass


async def test_everything_in_redis_expires_by_itself(own_settings, queue_valkey):
    async with opened(own_settings, queue_valkey) as way:
        asking = asyncio.create_task(way.venue.send(ACCOUNT, make_order()))
        await asyncio.sleep(0.1)
        keys = queue_valkey.keys("tickgate:terminal:*")
        assert len(keys) == 2
        assert all(0 < queue_valkey.pttl(key) <= 60_000 for key in keys)
        await way.answered(lambda command: done(command, report=REPORT))
        await asking


async def test_a_killed_redis_leaves_no_wrong_answer_and_the_next_order_goes_through(
    queue_house, queue_valkey
):
    engine = queue_house.engines["valkey"]
    async with opened(queue_house.settings, queue_valkey) as way:
        asking = asyncio.create_task(way.venue.send(ACCOUNT, make_order()))
        await way.taken()
        await asyncio.to_thread(engine.stop, signal.SIGKILL)
        # Taken and never answered; the one that comes while nobody is there was surely not asked.
        with pytest.raises(UnknownOutcome):
            await asking
        with pytest.raises(Unavailable):
            await way.venue.send(ACCOUNT, make_order())
        engine.start()
        await asyncio.to_thread(engine.wait)
        async with asyncio.timeout(15):
            while True:
                # Two connections, and each comes back in its own time.
                try:
                    await way.relay.announce([SOURCE])
                    await way.relay.take()
                    break
                except Unavailable:
                    await asyncio.sleep(0.1)
        asking = asyncio.create_task(way.venue.send(ACCOUNT, make_order()))
        await way.answered(lambda command: done(command, report=REPORT))
        assert await asking == REPORT
