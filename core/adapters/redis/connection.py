"""One multiplexed Redis connection: commands of one loop turn leave in one write, answers come back in order.

It costs a tenth of a pooled client's CPU per command when many wait at once. RESP2, so every Redis-like server
speaks it. A connection that leaves a command unanswered for too long is given up, because nothing else would
notice a peer that is stopped or cut off.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

import hiredis

from core.errors.exceptions import Misconfigured
from core.settings import RedisSettings

Command = tuple[str | bytes | int, ...]
OnMessage = Callable[[bytes], None]

STEPPED_DOWN: Final = ("READONLY", "MASTERDOWN")
"""What a server answers that is a replica since a failover: another one is to be looked for."""
_REFUSED: Final = ("WRONGPASS", "NOAUTH", "ERR invalid password", "ERR AUTH", "ERR DB index")


class Lost(ConnectionError):
    """The connection ended before every answer came: what was sent may or may not have happened."""


class _Batch:
    """Commands sent together whose answers are delivered together."""

    __slots__ = ("answers", "future", "size")

    def __init__(self, future: asyncio.Future[list[Any]] | None, size: int) -> None:
        self.future = future
        self.size = size
        self.answers: list[Any] = []


class Connection(asyncio.Protocol):
    """See the module. on_message: given every message of the subscribed channels."""

    def __init__(self, answer_timeout_s: float, on_message: OnMessage | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._answer_timeout_s = answer_timeout_s
        self._on_message = on_message
        self._transport: asyncio.Transport | None = None
        self._outgoing: list[bytes] = []
        self._waiting: deque[_Batch] = deque()
        self._answered = 0
        self._watchdog: asyncio.TimerHandle | None = None
        self.lost: asyncio.Future[None] = self._loop.create_future()

    async def ask(self, *commands: Command) -> list[Any]:
        """Send the commands and return their answers.

        Raises:
            Lost: no answer came; the commands may have happened. hiredis.ReplyError: the first one refused.
        """
        if self.lost.done():
            raise Lost("the connection is closed")
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        self._enqueue(commands, future)
        return await future

    async def ask_within(self, timeout_s: float, *commands: Command) -> list[Any]:
        """Do the same, but wait no longer than that. Raises: also TimeoutError; the commands may have happened."""
        if self.lost.done():
            raise Lost("the connection is closed")
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        self._enqueue(commands, future)
        # A third of what asyncio.timeout costs, at every job; a late answer finds its future done.
        timer = self._loop.call_later(timeout_s, _give_up, future)
        try:
            return await future
        finally:
            timer.cancel()

    def send(self, *commands: Command) -> None:
        """Send commands whose answers nobody needs."""
        if not self.lost.done():
            self._enqueue(commands, None)

    def close(self) -> None:
        """End the connection; whoever waits is told."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports keep asyncio's promises without being its subclasses.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (answer := self._reader.gets()) is not False:
                self._take(answer)
        except hiredis.ProtocolError:
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
        if not self.lost.done():
            self.lost.set_result(None)
        while self._waiting:
            future = self._waiting.popleft().future
            if future is not None and not future.done():
                future.set_exception(Lost(str(error or "closed")))

    def _enqueue(self, commands: tuple[Command, ...], future: asyncio.Future[list[Any]] | None) -> None:
        self._waiting.append(_Batch(future, len(commands)))
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        # hiredis takes any number of parts; its stub says one.
        self._outgoing.extend(hiredis.pack_command(command) for command in commands)  # type: ignore[arg-type]
        if self._watchdog is None:
            self._watch(self._answered)

    def _flush(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._outgoing))
        self._outgoing.clear()

    def _take(self, answer: Any) -> None:
        if self._on_message is not None and isinstance(answer, list) and answer[0] == b"message":
            self._on_message(answer[2])
            return
        self._answered += 1
        batch = self._waiting[0]
        batch.answers.append(answer)
        if len(batch.answers) < batch.size:
            return
        self._waiting.popleft()
        refused = _refusal(batch.answers)
        if refused is not None and str(refused).startswith(STEPPED_DOWN):
            self._loop.call_soon(self.close)
        if batch.future is None or batch.future.done():
            return
        if refused is None:
            batch.future.set_result(batch.answers)
        else:
            batch.future.set_exception(refused)

    def _watch(self, answered: int) -> None:
        def look() -> None:
            self._watchdog = None
            if not self._waiting:
                return
            if self._answered == answered:
                self.close()
            else:
                self._watch(self._answered)

        self._watchdog = self._loop.call_later(self._answer_timeout_s, look)


def _give_up(future: asyncio.Future[list[Any]]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())


def _refusal(answers: list[Any]) -> hiredis.ReplyError | None:
    for answer in answers:
        if isinstance(answer, hiredis.ReplyError):
            return answer
    return None


async def connect(
    redis: RedisSettings, answer_timeout_s: float, on_message: OnMessage | None = None
) -> Connection:
    """Open a connection that is ready for commands.

    Raises:
        OSError, TimeoutError, hiredis.ReplyError: nobody serves there yet.
        Misconfigured: the server refuses our password or database.
    """
    context = ssl.create_default_context() if redis.secure else None
    async with asyncio.timeout(redis.connect_timeout_s):
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(answer_timeout_s, on_message), redis.host, redis.port, ssl=context
        )
        try:
            await connection.ask(*_greeting(redis))
        except hiredis.ReplyError as e:
            connection.close()
            if str(e).startswith(_REFUSED):
                raise Misconfigured("Redis refuses our password or database", code="QUEUE_AUTH") from e
            raise
        except BaseException:
            connection.close()
            raise
    return connection


def _greeting(redis: RedisSettings) -> list[Command]:
    greeting: list[Command] = []
    if redis.password:
        user = (redis.user,) if redis.user else ()
        greeting.append(("AUTH", *user, redis.password.reveal()))
    greeting.append(("SELECT", redis.database))
    return [*greeting, ("PING",)]
