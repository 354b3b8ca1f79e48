"""Submitting orders to a gateway: a socket for each connection, and as little of the machine as possible."""

import asyncio
import secrets
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from core.adapters.postgres.pool import connect
from core.settings import Settings
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
    door: FrontDoor, token: str, connections: int, *, until_s: float, most: int, pause_s: float = 0.0
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
            turn += connections
            await asyncio.sleep(pause_s)

    await asyncio.gather(*(go(link, number) for number, (link, _) in enumerate(links)))
    for _, writer in links:
        writer.close()
    return done


async def moments(settings: Settings, orders: Sequence[str]) -> dict[str, dict[str, float]]:
    """Wait until the orders are filled, and return when (epoch ms) each came to each state."""
    link = await connect(settings.postgres, "tickgate-bench")
    try:
        deadline = time.monotonic() + 60
        while True:
            rows = await link.fetch(
                "select order_id, new_state, extract(epoch from at)::float8 * 1000 as at_ms from order_events"
                " where order_id = any($1)",
                list(orders),
            )
            found: dict[str, dict[str, float]] = {}
            for row in rows:
                found.setdefault(row["order_id"], {})[row["new_state"]] = row["at_ms"]
            if all("FILLED" in found.get(order, {}) for order in orders):
                return found
            left = [found.get(order, {}) for order in orders if "FILLED" not in found.get(order, {})]
            assert time.monotonic() < deadline, f"{len(left)} are not filled: {left[:3]}"
            await asyncio.sleep(0.1)
    finally:
        await link.close()
