"""A small TCP proxy that makes bad weather: delay, slices, thin pipes, silence, cuts, replies lost after the effect.

It runs on a thread of its own, so that a test may stop processes and wait while it goes on.
"""

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

CHUNK_BYTES = 64 * 1024
CONTROL_TIMEOUT_S = 10.0
DELIVERY_S = 0.5
CHUNKED_END = b"0\r\n\r\n"


@dataclass
class Weather:
    """What happens to bytes. Changed at any time; holds for what is forwarded from then on.

    frozen: forward nothing for now, and lose nothing. refusing: reset who connects.
    """

    latency_s: float = 0.0
    jitter_s: float = 0.0
    slice_bytes: int = 0
    bytes_per_s: float = 0.0
    frozen: bool = False
    refusing: bool = False


@dataclass
class Trap:
    """Waits for one request that contains `match`, and cuts its sender off with a reset.

    lose_reply: when the server has replied. Otherwise when the request is complete, whose last bytes are held back
    until `release`, as by a network that was slow and not dead. sprung: the sender is cut off; delivered: the server
    has all of it.
    """

    match: bytes
    lose_reply: bool
    release: threading.Event = field(default_factory=threading.Event)
    sprung: threading.Event = field(default_factory=threading.Event)
    delivered: threading.Event = field(default_factory=threading.Event)


@dataclass(eq=False)
class _Link:
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    trap: Trap | None = None
    up_silent: bool = False
    down_silent: bool = False


class Proxy:
    """Listens on `port` and forwards to `target_port`, both on loopback."""

    def __init__(self, target_port: int, seed: int = 0) -> None:
        self.target_port = target_port
        self.weather = Weather()
        self.bytes_up = 0
        self.connections = 0
        self._random = random.Random(seed)
        self._traps: list[Trap] = []
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server: asyncio.Server = self._run(self._listen())
        self.port: int = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CONTROL_TIMEOUT_S)
        self._loop.close()

    def cut(self, *, reset: bool = True) -> None:
        """End every connection, by RST or by FIN."""
        self._run(self._cut(reset=reset))

    def silence(self, *, up: bool, down: bool) -> None:
        """Swallow what the connections of this moment send: up, down, or, half open, both; later ones are sound."""
        for link in list(self._links):
            link.up_silent, link.down_silent = up, down

    def set_trap(self, trap: Trap) -> Trap:
        self._traps.append(trap)
        return trap

    # -- on the thread -----------------------------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CONTROL_TIMEOUT_S)

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def _close(self) -> None:
        self._server.close()
        await self._cut(reset=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _cut(self, *, reset: bool) -> None:
        for link in self._links:
            for end in (link.client, link.server):
                _end(end, reset=reset)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        if self.weather.refusing:
            _end(writer, reset=True)
            return
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            _end(writer, reset=True)
            return
        link = _Link(writer, server_writer)
        self._links.add(link)
        try:
            # One end closing closes the other, but what a trap holds is delivered first.
            both = [
                asyncio.ensure_future(self._up(reader, link)),
                asyncio.ensure_future(self._down(server_reader, link)),
            ]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if link.trap is not None:
                await asyncio.wait(both[:1])
            for pump in both:
                pump.cancel()
            await asyncio.gather(*both, return_exceptions=True)
        finally:
            self._links.discard(link)
            for end in (writer, server_writer):
                end.close()

    async def _up(self, reader: asyncio.StreamReader, link: _Link) -> None:
        tail = b""
        while data := await _read(reader):
            self.bytes_up += len(data)
            seen = tail + data
            tail = seen[-4_096:]
            link.trap = link.trap or self._sprung_by(seen)
            if link.trap is not None and tail.endswith(CHUNKED_END):
                await self._spring(link, link.trap, data)
                return
            await self._forward(data, link.server, lambda: link.up_silent)

    def _sprung_by(self, seen: bytes) -> Trap | None:
        found = next((trap for trap in self._traps if trap.match in seen), None)
        if found is not None:
            self._traps.remove(found)
        return found

    async def _spring(self, link: _Link, trap: Trap, data: bytes) -> None:
        """The request is complete."""
        if trap.lose_reply:
            link.server.write(data)
            await asyncio.Event().wait()  # for the reply, which ends this
        held = len(CHUNKED_END)
        link.server.write(data[:-held])
        _end(link.client, reset=True)
        trap.sprung.set()
        while not trap.release.is_set():
            await asyncio.sleep(0.01)
        link.server.write(data[-held:])
        await link.server.drain()
        trap.delivered.set()
        await asyncio.sleep(DELIVERY_S)

    async def _down(self, reader: asyncio.StreamReader, link: _Link) -> None:
        while data := await _read(reader):
            if link.trap is not None:
                if link.trap.lose_reply:
                    _end(link.client, reset=True)
                    link.trap.sprung.set()
                    link.trap.delivered.set()
                    link.trap = None
                    return
                continue
            await self._forward(data, link.client, lambda: link.down_silent)

    async def _forward(self, data: bytes, to: asyncio.StreamWriter, silent: Callable[[], bool]) -> None:
        size = self.weather.slice_bytes or len(data)
        for at in range(0, len(data), size):
            piece = data[at : at + size]
            while self.weather.frozen:
                await asyncio.sleep(0.01)
            delay_s = self.weather.latency_s + self._random.uniform(0, self.weather.jitter_s)
            if self.weather.bytes_per_s:
                delay_s += len(piece) / self.weather.bytes_per_s
            if delay_s:
                await asyncio.sleep(delay_s)
            if not silent():
                with contextlib.suppress(ConnectionError):
                    to.write(piece)
                    await to.drain()


async def _read(reader: asyncio.StreamReader) -> bytes:
    with contextlib.suppress(ConnectionError):
        return await reader.read(CHUNK_BYTES)
    return b""


def _end(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    if reset:
        peer: socket.socket = writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    else:
        writer.close()
