"""One address may neither connect nor guess tokens without end, and does not shut out another."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from websockets.asyncio.client import connect

from core.messages.wire import NackCode
from core.settings import Settings
from tests.bridges import Bridge, Wire, build_bridge

CONNECTS_MAX = 10
FAILURES_MAX = 2


@pytest.fixture
def bridge(settings: Settings, tmp_path: Path) -> Iterator[Bridge]:
    bridge = build_bridge(
        settings, tmp_path, connects_per_minute_max=CONNECTS_MAX, failures_per_minute_max=FAILURES_MAX
    )
    bridge.start()
    try:
        bridge.wait_ready()
        yield bridge
    finally:
        bridge.stop()


@asynccontextmanager
async def dial_from(bridge: Bridge, address: str, path: str = "/v1/ingest") -> AsyncIterator[Wire]:
    async with connect(f"{bridge.url}{path}", local_addr=(address, 0), compression=None) as socket:
        yield Wire(socket)


async def test_an_address_that_connects_too_often_is_refused_and_others_are_not(bridge: Bridge) -> None:
    for _ in range(CONNECTS_MAX):
        async with dial_from(bridge, "127.0.0.2"):
            pass
    async with dial_from(bridge, "127.0.0.2") as refused:
        nack = await refused.nack()
        assert (nack.code, await refused.close_code()) == (NackCode.RATE_LIMITED, 4430)
    async with dial_from(bridge, "127.0.0.2", "/v1/stream") as refused:
        assert msgspec.json.decode(await refused.socket.recv())["code"] == "RATE_LIMITED"
        assert await refused.close_code() == 4429
    async with dial_from(bridge, "127.0.0.3") as other:
        assert (await other.resume()).epoch == 1


async def test_an_address_that_guesses_tokens_may_not_go_on(bridge: Bridge) -> None:
    for _ in range(FAILURES_MAX):
        async with dial_from(bridge, "127.0.0.4") as guessing:
            await guessing.hello(token="a guess")
            assert (await guessing.nack()).code is NackCode.UNAUTHORIZED
    async with dial_from(bridge, "127.0.0.4") as barred:
        assert (await barred.nack()).code is NackCode.RATE_LIMITED
    async with dial_from(bridge, "127.0.0.5") as other:
        assert (await other.resume()).epoch == 1
