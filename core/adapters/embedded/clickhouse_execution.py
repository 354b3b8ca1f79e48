"""One request in the engine: rows stored, a question answered, other queries stopped."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from aiohttp import web

from core.adapters.embedded.clickhouse_answer import BUFFER_BYTES_MAX, Responder, encoder_for
from core.adapters.embedded.clickhouse_engine import Answer, Engine, Handle
from core.adapters.embedded.clickhouse_errors import SYNTAX_ERROR, TIMEOUT_EXCEEDED, EngineError, refusal
from core.adapters.embedded.clickhouse_registry import Registry, Running, describe, kill_report
from core.adapters.embedded.clickhouse_request import Asked
from core.adapters.embedded.clickhouse_sessions import Sessions
from core.adapters.embedded.clickhouse_statement import (
    HEAD_BYTES_MAX,
    Kind,
    Statement,
    parse,
    processes_references,
)

# Turns of the loop in which whatever clients sent before now is read and entered in the registry.
_SETTLING_TURNS: Final = 10
# A query told to stop just before it began does not hear it, so it is told until it has ended.
_KILL_AGAIN_SECONDS: Final = 0.05

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """What all requests share."""

    engine: Engine
    registry: Registry
    sessions: Sessions
    readers: ThreadPoolExecutor
    writers: ThreadPoolExecutor
    stoppers: ThreadPoolExecutor

    def close(self) -> None:
        for pool in (self.readers, self.writers, self.stoppers):
            pool.shutdown(wait=True)
        self.sessions.close()


class Execution:
    """Runs what was asked; lives as long as the request."""

    def __init__(
        self, house: House, request: web.Request, responder: Responder, running: Running, asked: Asked
    ) -> None:
        self._house = house
        self._request = request
        self._responder = responder
        self._running = running
        self._asked = asked
        self._killer: asyncio.Task[None] | None = None

    async def answer(self) -> web.StreamResponse:
        head = _head(self._asked.pieces)
        self._running.query = describe(head)
        statement = parse(head)
        self._running.carried_through = statement.kind is not Kind.READ
        if statement.kind is Kind.INSERT_DATA:
            self._running.query = describe(head[: statement.data_start])
            return await self._insert(statement)
        sql = b"".join(self._asked.pieces)
        if statement.kind is Kind.KILL_QUERY:
            sql = await self._kill(statement)
        elif references := processes_references(sql):
            sql = await self._with_registry(sql, references)
        async with self._handle(self._house.readers) as handle:
            return await self._read(handle, statement, sql)

    async def _insert(self, statement: Statement) -> web.Response:
        limit_s = _seconds(self._asked.settings.get("max_execution_time", ""))
        loop = asyncio.get_running_loop()
        timer = loop.call_later(limit_s, self._running.stop, _too_slow(limit_s)) if limit_s else None
        try:
            async with self._handle(self._house.writers) as handle:
                rows = _rows(self._asked.pieces, statement.data_start)
                work = partial(handle.insert, statement.sql, statement.format or "", rows, self._running)
                written = await _in_thread(self._house.writers, work)
        finally:
            if timer is not None:
                timer.cancel()
        self._responder.summary(read_rows=written, written_rows=written, result_rows=written)
        return self._responder.whole()

    async def _read(self, handle: Handle, statement: Statement, sql: bytes) -> web.StreamResponse:
        pool = self._house.readers
        fmt = statement.format or self._asked.default_format
        streamed = statement.kind is Kind.READ
        answer = await _in_thread(pool, partial(Answer, handle, sql, fmt, streamed=streamed))

        async def following() -> bytes:
            self._running.check()
            return await _in_thread(pool, answer.next)

        try:
            first, complete = await _gather(following, BUFFER_BYTES_MAX if self._asked.wait_for_end else 1)
            self._responder.summary(
                read_rows=answer.rows, result_rows=answer.rows, written_rows=answer.rows_written
            )
            if not statement.answers:
                return self._responder.whole()
            return await self._send(fmt, first, None if complete else following)
        finally:
            await _in_thread(pool, answer.close)

    async def _send(
        self, fmt: str, first: list[bytes], following: Callable[[], Awaitable[bytes]] | None
    ) -> web.StreamResponse:
        self._responder.headers["X-ClickHouse-Format"] = fmt
        encoder = encoder_for(self._request, compressed=self._asked.compressed)
        if encoder is not None:
            self._responder.headers["Content-Encoding"] = encoder.encoding
        if following is not None:
            # From here on a stop also cuts the connection: the client may be too slow to ever take the rest.
            self._running.on_stop(self._interrupt_sending)
            return await self._responder.stream(first, following, encoder)
        body = b"".join(first)
        return self._responder.whole(encoder.feed(body) + encoder.finish() if encoder else body)

    async def _kill(self, statement: Statement) -> bytes:
        """Stop what the condition names; with SYNC nothing of it can happen any more when this returns."""
        self._running.kills = True
        if not statement.condition:
            raise refusal(SYNTAX_ERROR, "KILL QUERY needs WHERE", "SYNTAX_ERROR")
        await _settle()
        question = self._house.registry.choosing(statement.condition.decode())
        tokens = await _in_thread(self._house.stoppers, partial(self._house.engine.ask, question))
        chosen = self._house.registry.stoppable(tokens.split())
        if statement.mode != b"TEST":
            await self._house.registry.stop(chosen, wait=statement.mode == b"SYNC")
        status = "finished" if statement.mode == b"SYNC" else "waiting"
        return kill_report(chosen, status).encode()

    async def _with_registry(self, sql: bytes, references: list[tuple[int, int]]) -> bytes:
        await _settle()
        table = self._house.registry.as_table().encode()
        for start, end in reversed(references):
            sql = sql[:start] + table + sql[end:]
        return sql

    @asynccontextmanager
    async def _handle(self, pool: Executor) -> AsyncIterator[Handle]:
        """Open a handle, configured for this request, or take the session's."""
        asked, token = self._asked, self._running.token
        self._running.on_stop(self._interrupt)
        if asked.session_id:
            handle = self._house.sessions.enter(asked.session_id)
        else:
            handle = await _in_thread(pool, partial(self._house.engine.open, token))
        settings = asked.settings | ({"log_comment": token} if asked.session_id else {})
        try:
            await _in_thread(pool, partial(handle.configure, asked.database, settings))
            for table in asked.tables:
                load = partial(handle.load, table.name, table.structure, table.format, table.data)
                await _in_thread(pool, load)
            yield handle
        finally:
            if asked.session_id:
                await _in_thread(pool, partial(handle.reset, settings))
                self._house.sessions.leave(asked.session_id, asked.session_timeout_s)
            else:
                await _in_thread(pool, handle.close)

    def _interrupt(self) -> None:
        self._killer = asyncio.create_task(self._kill_until_finished())

    def _interrupt_sending(self) -> None:
        self._interrupt()
        if self._request.transport is not None:
            self._request.transport.abort()

    async def _kill_until_finished(self) -> None:
        kill = partial(self._house.engine.kill, self._running.token)
        while not self._running.finished.is_set():
            await _in_thread(self._house.stoppers, kill)
            with suppress(TimeoutError):
                async with asyncio.timeout(_KILL_AGAIN_SECONDS):
                    await self._running.finished.wait()


async def _in_thread(pool: Executor, work: Callable[[], Result]) -> Result:
    return await asyncio.get_running_loop().run_in_executor(pool, work)


async def _settle() -> None:
    for _ in range(_SETTLING_TURNS):
        await asyncio.sleep(0)


async def _gather(following: Callable[[], Awaitable[bytes]], bytes_max: int) -> tuple[list[bytes], bool]:
    """Take parts up to `bytes_max` and say whether that was all."""
    parts: list[bytes] = []
    size = 0
    while size < bytes_max:
        part = await following()
        if not part:
            return parts, True
        parts.append(part)
        size += len(part)
    return parts, False


def _head(pieces: list[bytes]) -> bytes:
    head = b""
    for piece in pieces:
        head += piece[: HEAD_BYTES_MAX - len(head)]
        if len(head) >= HEAD_BYTES_MAX:
            break
    return head


def _rows(pieces: list[bytes], start: int) -> Iterator[bytes]:
    """Give what lies behind the statement, without joining the pieces."""
    for piece in pieces:
        if start < len(piece):
            yield piece[start:] if start else piece
        start = max(start - len(piece), 0)


def _seconds(text: str) -> float:
    try:
        return max(float(text), 0.0)
    except ValueError:
        return 0.0


def _too_slow(limit_s: float) -> EngineError:
    return refusal(TIMEOUT_EXCEEDED, f"Timeout exceeded: maximum {limit_s} s.", "TIMEOUT_EXCEEDED")
