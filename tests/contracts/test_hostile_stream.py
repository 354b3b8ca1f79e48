"""The live stream against web pages, tenants that want all of it, and addresses that never say who they are."""

import http.client
from collections.abc import Iterator
from contextlib import AsyncExitStack

import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tests.bridges import Bridge, build_bridge
from tests.engines import House, new_databases

PAGE = "https://app.example.com"
BY_TENANT_MAX = 2
WAITING_MAX = 3


@pytest.fixture(scope="module")
def bridge(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    bridge = build_bridge(
        new_databases(house),
        tmp_path_factory.mktemp("stream"),
        hello_timeout_s=30.0,
        stream_origins=[PAGE],
        stream_subscribers_by_tenant_max=BY_TENANT_MAX,
        unknown_by_address_max=WAITING_MAX,
    )
    bridge.start()
    try:
        bridge.wait_ready()
        yield bridge
    finally:
        bridge.stop()


def subscriber(bridge: Bridge, *, tenant: str = "demo", origin: str | None = None, path: str = "") -> connect:
    headers = {"Authorization": f"Bearer {bridge.token(tenant=tenant)}"}
    return connect(f"{bridge.url}/v1/stream{path}", additional_headers=headers, origin=origin)


async def is_open(socket: ClientConnection) -> bool:
    await (await socket.ping())
    return True


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", f"{PAGE}.evil.example", "http://localhost"]
)
@pytest.mark.parametrize("path", ["/v1/stream", "/v1/ingest"])
async def test_a_page_that_is_not_listed_cannot_connect(bridge: Bridge, path: str, origin: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(bridge.url + path, origin=origin)
    assert refused.value.response.status_code == 403


async def test_a_page_that_is_listed_connects_to_the_stream_alone(bridge: Bridge) -> None:
    async with subscriber(bridge, origin=PAGE) as socket:
        assert await is_open(socket)
    with pytest.raises(InvalidStatus):
        await connect(f"{bridge.url}/v1/ingest", origin=PAGE)


async def test_a_query_of_many_fields_is_refused_and_nothing_breaks(bridge: Bridge) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"{bridge.url}/v1/stream?{'&'.join(['a=b'] * 9)}")
    assert refused.value.response.status_code == 400
    assert "Traceback" not in bridge.log.read_text()


async def test_a_tenant_cannot_have_every_subscribers_place(bridge: Bridge) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(BY_TENANT_MAX):
            assert await is_open(await stack.enter_async_context(subscriber(bridge)))
        async with subscriber(bridge) as refused:
            assert msgspec.json.decode(await refused.recv())["code"] == "TOO_MANY_SUBSCRIBERS"
            await refused.wait_closed()
            assert refused.close_code == 4429
        async with subscriber(bridge, tenant="rival") as other:
            assert await is_open(other)
    async with subscriber(bridge) as again:
        assert await is_open(again)


async def test_an_address_has_few_connections_that_never_said_who_they_are(bridge: Bridge) -> None:
    async with AsyncExitStack() as stack:
        for path in ("/v1/stream", "/v1/ingest", "/v1/stream"):
            silent = connect(bridge.url + path, local_addr=("127.0.0.2", 0))
            await stack.enter_async_context(silent)
        async with connect(f"{bridge.url}/v1/stream", local_addr=("127.0.0.2", 0)) as refused:
            assert msgspec.json.decode(await refused.recv())["code"] == "RATE_LIMITED"
        async with connect(f"{bridge.url}/v1/stream", local_addr=("127.0.0.3", 0)) as other:
            assert await is_open(other)
    async with connect(f"{bridge.url}/v1/stream", local_addr=("127.0.0.2", 0)) as again:
        assert await is_open(again)


def test_the_small_answers_are_for_pages_no_more_than_before(bridge: Bridge) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", bridge.port, timeout=5)
    connection.request("GET", "/livez", headers={"Origin": "https://evil.example"})
    assert connection.getresponse().status == 200
