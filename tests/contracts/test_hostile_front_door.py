"""What a hostile caller does with what it holds: credentials that end while they are used, places others need."""

import asyncio
import json
import socket
import time
import uuid
from collections.abc import Iterator

import pytest

from core.infrastructure.provisioning import rotate_client_secret
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
