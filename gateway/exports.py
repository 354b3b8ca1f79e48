"""Exports: all ticks or bars of a symbol in one answer, sent as fast as its reader takes it and never held as a whole.

An answer that fails before its first byte is a problem like any other. One that fails later is broken off: its last
chunk never comes, so nobody can take a part for the whole.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any, Final

from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from core.errors.exceptions import Unavailable
from core.messages.jobs import (
    EXPORT_CONTENT_TYPES,
    Answer,
    BarExportOrder,
    BarExportQuery,
    ExportFormat,
    ExportOrder,
    ExportQuery,
)
from gateway.parameters import parse
from gateway.routing import Call

STREAM_NAME_BYTES: Final = 16
ANSWER_TIMEOUT_S: Final = 1_800
STALL_S_MAX: Final = 60.0
"""A reader that takes nothing for this long gives its place to others."""
SUFFIXES: Final = {
    ExportFormat.JSON: "ndjson",
    ExportFormat.CSV: "csv",
    ExportFormat.ARROW: "arrows",
    ExportFormat.PARQUET: "parquet",
    ExportFormat.MT5: "csv",
}
assert set(SUFFIXES) == set(ExportFormat), "every format has its suffix"


async def ticks(call: Call) -> Response:
    """Send all ticks of one symbol in one answer, at the pace of its reader."""
    query = parse(call.request, ExportQuery)
    stream = secrets.token_urlsafe(STREAM_NAME_BYTES)
    return await _begun(call, query, "market.export", ExportOrder(query=query, stream=stream))


async def bars(call: Call) -> Response:
    """Send all bars of one symbol in one answer, at the pace of its reader."""
    query = parse(call.request, BarExportQuery)
    stream = secrets.token_urlsafe(STREAM_NAME_BYTES)
    return await _begun(call, query, "market.export_bars", BarExportOrder(query=query, stream=stream))


async def _begun(
    call: Call, query: ExportQuery, function: str, order: ExportOrder | BarExportOrder
) -> "Export":
    """Ask for an export and wait for its first chunk."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(call.services.exports.one(call.caller.tenant))
        chunks = await stack.enter_async_context(call.services.answer_streams.reading(order.stream))
        asking = asyncio.create_task(
            call.services.queue.ask(
                function,
                order,
                tenant=call.caller.tenant,
                timeout_ms=ANSWER_TIMEOUT_S * 1_000,
            )
        )
        stack.push_async_callback(_cancelled, asking)
        first = await _first(chunks, asking)
        # From here on the answer holds what is open, until it has been sent.
        return Export(query, first, chunks, asking, stack.pop_all())


class Export(StreamingResponse):
    """An answer on its way. first: its first chunk; held: what is closed when it ends, however it ends."""

    def __init__(
        self,
        query: ExportQuery,
        first: bytes,
        chunks: AsyncGenerator[bytes, None],
        asking: "asyncio.Task[Answer | str]",
        held: AsyncExitStack,
    ) -> None:
        super().__init__(chunks, headers=_headers(query))
        self._first = first
        self._chunks = chunks
        self._asking = asking
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._held:
            if scope["method"] == "HEAD":
                await send(self._start())
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            sending = asyncio.create_task(self._send(send))
            leaving = asyncio.create_task(_left(receive))
            try:
                await asyncio.wait({sending, leaving, self._asking}, return_when=asyncio.FIRST_COMPLETED)
                if self._asking.done() and not leaving.done():
                    # Raises what stopped the worker; one that has ended well has written everything.
                    _ended_well(self._asking.result())
                    await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if sending.done():
                    sending.result()
            finally:
                await _cancelled(sending)
                await _cancelled(leaving)

    def _start(self) -> Message:
        return {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}

    async def _send(self, send: Send) -> None:
        await send(self._start())
        await _passed(send, self._first)
        async for chunk in self._chunks:
            await _passed(send, chunk)
        # Only a whole answer ends.
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _first(chunks: AsyncGenerator[bytes, None], asking: "asyncio.Task[Answer | str]") -> bytes:
    """Return the first chunk, nothing when there is none, or raise what keeps it from coming."""
    beginning = asyncio.create_task(_next(chunks))
    try:
        await asyncio.wait({beginning, asking}, return_when=asyncio.FIRST_COMPLETED)
        if not beginning.done():
            _ended_well(asking.result())
        return await beginning
    finally:
        await _cancelled(beginning)


async def _next(chunks: AsyncGenerator[bytes, None]) -> bytes:
    return await anext(chunks, b"")


def _ended_well(answer: Answer | str) -> None:
    if isinstance(answer, str):
        raise Unavailable("the answer took too long; ask for it in parts", code="JOB_TIMEOUT")


async def _passed(send: Send, chunk: bytes) -> None:
    if not chunk:
        return
    try:
        async with asyncio.timeout(STALL_S_MAX):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except TimeoutError as e:
        raise Unavailable("the answer was not read", code="ANSWER_NOT_READ") from e


async def _left(receive: Receive) -> None:
    """Return once the caller has gone."""
    while (await receive())["type"] != "http.disconnect":
        continue


async def _cancelled(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _headers(query: ExportQuery) -> dict[str, str]:
    # MetaTrader names its files alike.
    name = f"{query.symbol}_{query.interval}" if isinstance(query, BarExportQuery) else query.symbol
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name)
    return {
        "Content-Type": EXPORT_CONTENT_TYPES[query.format],
        "Content-Disposition": f'attachment; filename="{safe}.{SUFFIXES[query.format]}"',
        "Vary": "Accept, Authorization",
        # A proxy that gathers the answer would undo its pace.
        "X-Accel-Buffering": "no",
    }
