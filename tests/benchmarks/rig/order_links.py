"""Submitting orders to a gateway: a socket for each connection, and as little of the machine as possible."""

import asyncio
import secrets
import time
from typing import Final

import msgspec

from tests.gateways import FrontDoor
from tests.trading_floors import SYMBOL

ACCOUNTS: Final = tuple(f"b{number:02}" for number in range(16))


class Link:
    """One connection to the gateway that waits for each answer: a socket and as little else as possible."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> None:
        self._reader = reader
        self._writer = writer
        self._token = token

    async def submit(self, name: str, side: str) -> str:
        """Submit a market order and return its id."""
        order = {"account": name, "symbol": SYMBOL, "side": side, "type": "market", "volume": "0.01"}
        body = msgspec.json.encode({**order, "valid_for_ms": 60_000})
        head = (
            f"POST /v1/orders HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self._token}\r\n"
            f"Content-Type: application/json\r\nIdempotency-Key: {secrets.token_hex(16)}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        lines = answer.decode().lower().split("\r\n")
        length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length"))
        told = msgspec.json.decode(await self._reader.readexactly(length))
        assert told.get("state") == "QUEUED", told
        return str(told["id"])


Submitted = tuple[str, float, float]
"""An order's id, when it was asked for (epoch ms), and how long its 202 took (ms)."""


async def submitted(
    door: FrontDoor, token: str, connections: int, *, until_s: float, most: int
) -> list[Submitted]:
    """Submit over so many connections, each waiting for its answer."""
    links = []
    for _ in range(connections):
        reader, writer = await asyncio.open_connection("127.0.0.1", door.settings.gateway.port)
        links.append((Link(reader, writer, token), writer))
    done: list[Submitted] = []
    end = time.perf_counter() + until_s

    async def go(link: Link, turn: int) -> None:
        while time.perf_counter() < end and len(done) < most:
            at_ms, began = time.time() * 1_000, time.perf_counter()
            side = "buy" if turn // len(ACCOUNTS) % 2 else "sell"
            order = await link.submit(ACCOUNTS[turn % len(ACCOUNTS)], side)
            done.append((order, at_ms, (time.perf_counter() - began) * 1_000))
            turn += connections if connections > 1 else 1

    await asyncio.gather(*(go(link, number) for number, (link, _) in enumerate(links)))
    for _, writer in links:
        writer.close()
    return done
