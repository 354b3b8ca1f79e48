"""What a hostile caller does with what it holds: credentials that end while they are used, places others need."""

import asyncio
import json
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import AsyncExitStack

import httpx
import pytest

from core.adapters.postgres.pool import open_pool
from core.infrastructure.provisioning import rotate_client_secret
from core.model.keys import new_secret
from gateway.limits import LOOK_UPS_BY_ADDRESS_MAX
from tests import gateways
from tests.engines import House, wait_for
from tests.gateways import FrontDoor


@pytest.fixture(scope="module")
def door(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    door = gateways.build(tmp_path_factory.mktemp("hostile"), house, redis_database=9)
    with gateways.gateway_alone(door) as running:
        yield running


def withheld(door: FrontDoor, token: str, body: bytes) -> socket.socket:
    """Send all of a request for an API key but its body."""
    head = (
        "POST /v1/keys HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token}\r\nIdempotency-Key: {uuid.uuid4()}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", door.settings.gateway.port), timeout=10)
    connection.sendall(head.encode())
    return connection


def from_address(door: FrontDoor, address: str) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(local_address=address)
    return httpx.AsyncClient(base_url=door.url, transport=transport, timeout=30)


def accepted(door: FrontDoor, path: str, credential: str) -> bool:
    with door.client() as http:
        return http.get(path, headers={"Authorization": f"Bearer {credential}"}).status_code == 200


def test_a_request_that_withheld_its_body_ends_with_its_credential(door: FrontDoor) -> None:
    token = door.token()
    expires_at_ms = int(time.time() * 1_000) + 86_400_000
    body = json.dumps({"name": "mine", "scopes": ["keys:read"], "expires_at_ms": expires_at_ms}).encode()
    with withheld(door, token, body) as connection:
        wait_for(lambda: accepted(door, "/v1/keys", token), "the token being good")
        secret = asyncio.run(rotate_client_secret(door.settings, "demo", revoke=True)).reveal()
        # By then whoever holds the old token must not get a key for it.
        wait_for(lambda: accepted(door, "/v1/keys", door.token(secret=secret)), "new tokens being good")
        connection.sendall(body)
        status = int(connection.recv(65_536).split(b" ")[1])
    with door.client() as http:
        headers = {"Authorization": f"Bearer {door.token(secret=secret)}"}
        assert (status, http.get("/v1/keys", headers=headers).json()["items"]) == (401, [])


async def test_an_address_that_makes_up_keys_does_not_take_every_look_up(door: FrontDoor) -> None:
    async with AsyncExitStack() as stack:
        postgres = await stack.enter_async_context(open_pool(door.settings, {}))
        connection = await stack.enter_async_context(postgres.acquire())
        hostile = await stack.enter_async_context(from_address(door, "127.0.0.2"))
        other = await stack.enter_async_context(from_address(door, "127.0.0.3"))

        def made_up(http: httpx.AsyncClient) -> "asyncio.Task[httpx.Response]":
            return asyncio.create_task(http.get("/v1/keys", headers={"X-API-Key": new_secret().text}))

        async with connection.transaction():
            # Look-ups wait for as long as this is held.
            await connection.execute("lock table api_keys in access exclusive mode")
            guesses = [made_up(hostile) for _ in range(LOOK_UPS_BY_ADDRESS_MAX + 1)]
            (first,), _ = await asyncio.wait(guesses, return_when=asyncio.FIRST_COMPLETED)
            assert (first.result().status_code, first.result().json()["code"]) == (429, "TOO_MANY_AT_ONCE")
            anothers = made_up(other)
        assert (await anothers).status_code == 401
        assert sorted(answer.status_code for answer in await asyncio.gather(*guesses))[-1] == 429
