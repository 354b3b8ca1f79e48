"""The bridge between a venue and a connector of the test's own: it passes on, answers for who leaves, trusts nobody."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bridge.orders import PENDING_MAX
from core.adapters.redis.terminal_orders import TerminalOrders
from core.errors.exceptions import TickgateError, Unavailable, UnknownOutcome
from core.infrastructure.central_hub import open_hub
from core.messages import wire
from core.messages.order_seals import MAC_BYTES, digest_of, reply_key, sealed_reply, token_hash
from core.messages.terminal_orders import (
    Outcome,
    TerminalCommand,
    TerminalReply,
    decode_command,
    encode_reply,
)
from core.messages.wire import FrameType, NackCode
from core.model.orders import OrderState
from core.model.venues import VenueReport
from tests.bridges import TOKEN, Bridge, Wire, build_bridge, dial, make_rows
from tests.engines import House, new_databases
from tests.order_keys import KEYS
from tests.orders import ACCOUNT, make_order

REPLY_KEY = reply_key(token_hash(TOKEN))
MAC = b"x" * MAC_BYTES
REPORT = VenueReport(state=OrderState.FILLED, order="7", retcode=10_009)


@pytest.fixture(scope="module")
def shared_bridge(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    bridge = build_bridge(new_databases(house), tmp_path_factory.mktemp("bridge"))
    bridge.start()
    try:
        bridge.wait_ready()
        yield bridge
    finally:
        bridge.stop()


@pytest.fixture
async def venue(shared_bridge: Bridge) -> AsyncIterator[TerminalOrders]:
    async with open_hub(shared_bridge.settings, {"mt5_venue"}) as hub:
        yield hub["mt5_venue"]


@asynccontextmanager
async def connected(bridge: Bridge, venue: TerminalOrders, **hello: Any) -> AsyncIterator[Wire]:
    """A connector that carries out orders, known to whoever asks."""
    async with dial(bridge) as client:
        await client.resume(**{"orders": wire.ORDERS_VERSION, **hello})
        async with asyncio.timeout(10):
            while True:
                sending = asyncio.create_task(venue.view(ACCOUNT, 1))
                waiting = asyncio.create_task(next_order(client))
                await asyncio.wait({sending, waiting}, return_when=asyncio.FIRST_COMPLETED)
                if waiting.done():
                    # This bridge's, and it is here: the question itself is of no interest.
                    sending.cancel()
                    await asyncio.gather(sending, return_exceptions=True)
                    break
                waiting.cancel()
                await asyncio.gather(sending, waiting, return_exceptions=True)
                await asyncio.sleep(0.05)
        yield client


ASKED: dict[str, bytes] = {}
"""The digest of each command that has come."""


async def next_order(client: Wire) -> TerminalCommand:
    sealed = bytes(wire.body_of(await client.frame(FrameType.ORDER)))
    command = decode_command(KEYS.opened(sealed))
    ASKED[command.id] = digest_of(sealed)
    return command


async def reply(client: Wire, command_id: str, **fields: Any) -> None:
    answer = TerminalReply(id=command_id, **{"outcome": Outcome.DONE, "report": REPORT, **fields})
    sealed = sealed_reply(REPLY_KEY, ASKED.get(command_id, b""), encode_reply(answer))
    await client.socket.send(wire.encode_body(FrameType.ORDER_REPLY, sealed))


async def test_an_order_reaches_the_connector_and_its_reply_the_venue(shared_bridge, venue) -> None:
    async with connected(shared_bridge, venue) as client:
        asked = make_order()
        sending = asyncio.create_task(venue.send(ACCOUNT, asked))
        command = await next_order(client)
        assert command.order == asked
        await reply(client, command.id)
        assert await sending == REPORT


async def test_ticks_and_orders_do_not_wait_for_each_other(shared_bridge, venue) -> None:
    async with connected(shared_bridge, venue) as client:
        sending = asyncio.create_task(venue.send(ACCOUNT, make_order()))
        command = await next_order(client)
        await client.batch(1, make_rows(10))
        await client.acknowledged(10)
        await reply(client, command.id)
        assert await sending == REPORT


async def test_a_connector_that_knows_no_orders_is_sent_none(shared_bridge, venue) -> None:
    async with connected(shared_bridge, venue):
        pass
    # It is still announced for some seconds; whoever connects now is another one.
    async with dial(shared_bridge) as client:
        await client.resume()
        with pytest.raises(Unavailable) as error:
            await venue.send(ACCOUNT, make_order())
        assert error.value.code == "TERMINAL_NOT_CONNECTED"


async def test_a_connector_that_leaves_leaves_an_unknown_outcome(shared_bridge, venue) -> None:
    async with connected(shared_bridge, venue) as client:
        sending = asyncio.create_task(venue.send(ACCOUNT, make_order()))
        command = await next_order(client)
    with pytest.raises(UnknownOutcome) as error:
        await sending
    assert error.value.code == "CONNECTION_LOST"
    async with connected(shared_bridge, venue) as client:
        # Its reply comes too late, and on a connection that was not asked.
        await reply(client, command.id)
        sending = asyncio.create_task(venue.send(ACCOUNT, make_order()))
        await reply(client, (await next_order(client)).id)
        assert await sending == REPORT


async def test_another_tenants_order_does_not_reach_it(shared_bridge, venue) -> None:
    async with connected(shared_bridge, venue):
        with pytest.raises(Unavailable) as error:
            await venue.send(replace(ACCOUNT, tenant="rival"), make_order())
        assert error.value.code == "TERMINAL_NOT_CONNECTED"


async def test_a_command_whose_time_is_over_is_not_passed_on(shared_bridge, venue, monkeypatch) -> None:
    monkeypatch.setattr("core.adapters.redis.terminal_orders.VALID_S", -1.0)
    async with dial(shared_bridge) as client:
        await client.resume(orders=wire.ORDERS_VERSION)
        async with asyncio.timeout(10):
            while True:
                with pytest.raises(Unavailable) as error:
                    await venue.send(ACCOUNT, make_order())
                if error.value.code == "TOO_LATE":
                    break
                await asyncio.sleep(0.05)


async def test_replies_nobody_asked_for_count_as_a_flood(shared_bridge, venue) -> None:
    async with connected(shared_bridge, venue) as client:
        for number in range(220):
            await reply(client, f"nobody{number}")
        assert (await client.nack()).code is NackCode.WINDOW_EXCEEDED


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", NackCode.MALFORMED),
        (b'{"id":"' + b"x" * 65 + b'"}', NackCode.MALFORMED),
        (b'{"outcome":"done"}', NackCode.MALFORMED),
        (b'{"id":"a","reason":"' + b"x" * 4 * 1024**2 + b'"}', NackCode.TOO_LARGE),
    ],
    ids=["no JSON", "long id", "no id", "too large"],
)
async def test_a_reply_that_is_none_ends_the_connection(shared_bridge, venue, body, code) -> None:
    async with connected(shared_bridge, venue) as client:
        await client.socket.send(wire.encode_body(FrameType.ORDER_REPLY, MAC + body))
        assert (await client.nack()).code is code


async def test_before_resume_nobody_replies(shared_bridge) -> None:
    async with dial(shared_bridge) as client:
        await client.socket.send(wire.encode_body(FrameType.ORDER_REPLY, MAC + b'{"id":"a"}'))
        assert (await client.nack()).code is NackCode.HELLO_EXPECTED


async def test_a_connector_that_does_not_answer_is_asked_no_more_than_its_limit(
    shared_bridge, venue, monkeypatch
) -> None:
    monkeypatch.setattr("core.adapters.redis.terminal_orders.ANSWER_TIMEOUT_S", 2.5)
    async with connected(shared_bridge, venue) as client:
        asking = [asyncio.create_task(venue.send(ACCOUNT, make_order())) for _ in range(PENDING_MAX + 5)]
        outcomes = await asyncio.gather(*asking, return_exceptions=True)
        # What it was sent and never read is in the way of a polite end.
        client.socket.transport.abort()
    codes = [outcome.code for outcome in outcomes if isinstance(outcome, TickgateError)]
    # One of the places is taken by the question that found the connector.
    assert codes.count("TERMINAL_BUSY") == 6
    assert len(codes) == len(asking)


async def test_an_answer_of_nonsense_is_an_unknown_outcome(shared_bridge, venue, monkeypatch) -> None:
    monkeypatch.setattr("core.adapters.redis.terminal_orders.ANSWER_TIMEOUT_S", 2.5)
    async with connected(shared_bridge, venue) as client:
        sending = asyncio.create_task(venue.send(ACCOUNT, make_order()))
        command = await next_order(client)
        body = msgspec.json.encode({"id": command.id, "outcome": "perhaps"})
        sealed = sealed_reply(REPLY_KEY, ASKED[command.id], body)
        await client.socket.send(wire.encode_body(FrameType.ORDER_REPLY, sealed))
        with pytest.raises(UnknownOutcome):
            await sending


def test_the_flood_limit_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "wire-protocol.md").read_text()
    assert f"at most {PENDING_MAX} commands to answer" in text
