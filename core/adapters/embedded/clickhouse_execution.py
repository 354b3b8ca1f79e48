"""One request in the engine: rows stored, a question answered, other queries stopped."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from aiohttp import web

from core.adapters.embedded.clickhouse_answer import BUFFER_BYTES_MAX, FIRST_BYTES_MIN, Responder, encoder_for
from core.adapters.embedded.clickhouse_body import Encoder
from core.adapters.embedded.clickhouse_engine import Engine
from core.adapters.embedded.clickhouse_errors import SYNTAX_ERROR, refusal
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
from core.adapters.embedded.clickhouse_visit import Visit

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
        return await self._read(statement, sql)

    async def _insert(self, statement: Statement) -> web.Response:
        rows = _rows(self._asked.pieces, statement.data_start)
        with self._visit() as visit:
            written = await _in_thread(self._house.writers, partial(visit.insert, statement, rows))
        self._responder.summary(read_rows=written, written_rows=written, result_rows=written)
        return self._responder.whole()

    async def _read(self, statement: Statement, sql: bytes) -> web.StreamResponse:
        fmt = statement.format or self._asked.default_format
        bytes_max = BUFFER_BYTES_MAX if self._asked.wait_for_end else FIRST_BYTES_MIN
        with self._visit() as visit:
            begin = partial(visit.begin, sql, fmt, statement.kind, bytes_max)
            first, complete = await _in_thread(self._house.readers, begin)
            self._responder.summary(
                read_rows=visit.rows, result_rows=visit.rows, written_rows=visit.rows_written
            )
            if not statement.answers:
                return self._responder.whole()
            self._responder.headers["X-ClickHouse-Format"] = fmt
            encoder = encoder_for(self._request, compressed=self._asked.compressed)
            if complete:
                return await self._send_whole(first, encoder)
            try:
                return await self._send_stream(first, encoder, visit)
            finally:
                await _in_thread(self._house.readers, visit.leave)

    async def _send_whole(self, parts: list[bytes], encoder: Encoder | None) -> web.Response:
        if encoder is None:
            return self._responder.whole(b"".join(parts))
        self._responder.headers["Content-Encoding"] = encoder.encoding
        return self._responder.whole(await _in_thread(self._house.readers, partial(encoder.whole, parts)))

    async def _send_stream(
        self, first: list[bytes], encoder: Encoder | None, visit: Visit
    ) -> web.StreamResponse:
        # From here on a stop also cuts the connection: the client may be too slow to ever take the rest.
        self._running.on_stop(self._interrupt_sending)

        async def following() -> bytes:
            return await _in_thread(self._house.readers, visit.following)

        if encoder is not None:
            self._responder.headers["Content-Encoding"] = encoder.encoding
        return await self._responder.stream(first, following, encoder)

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

    @contextmanager
    def _visit(self) -> Iterator[Visit]:
        name = self._asked.session_id
        self._running.on_stop(self._interrupt)
        session = self._house.sessions.enter(name) if name else None
        try:
            yield Visit(self._house.engine, self._running, self._asked, session)
        finally:
            if name:
                self._house.sessions.leave(name, self._asked.session_timeout_s)

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
