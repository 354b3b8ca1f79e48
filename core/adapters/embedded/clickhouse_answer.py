"""Sends an answer: whole when it is small, streamed at the client's pace when it is not."""

import json
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from core.adapters.embedded.clickhouse_body import Encoder, response_encoder
from core.adapters.embedded.clickhouse_errors import EngineError

# A client that asked to wait for the end gets errors as a status up to this size, and mid-stream beyond it.
BUFFER_BYTES_MAX: Final = 8 * 1024 * 1024
# What is gathered before anything is sent to a client that waits for nothing.
FIRST_BYTES_MIN: Final = 64 * 1024

Next = Callable[[], Awaitable[bytes]]


class Responder:
    """One response in the making."""

    def __init__(self, request: web.Request, query_id: str, timezone: str) -> None:
        self._request = request
        self._started_s = time.monotonic()
        self._tag = secrets.token_hex(8)
        self.headers = {
            "X-ClickHouse-Query-Id": query_id,
            "X-ClickHouse-Timezone": timezone,
            "X-ClickHouse-Exception-Tag": self._tag,
            "Content-Type": "text/tab-separated-values; charset=UTF-8",
        }
        self._streaming: web.StreamResponse | None = None

    def failure(self, error: EngineError) -> web.Response:
        headers = {**self.headers, "X-ClickHouse-Exception-Code": str(error.code)}
        headers["Content-Type"] = "text/plain; charset=UTF-8"
        response = web.Response(status=error.status, body=error.body.encode(), headers=headers)
        if not self._request.content.is_eof():
            # The rest of a refused body would be read as the next request.
            response.force_close()
        return response

    def summary(self, *, read_rows: int = 0, written_rows: int = 0, result_rows: int = 0) -> None:
        elapsed_ns = int((time.monotonic() - self._started_s) * 1e9)
        figures = {
            "read_rows": read_rows,
            "written_rows": written_rows,
            "result_rows": result_rows,
            "elapsed_ns": elapsed_ns,
        }
        self.headers["X-ClickHouse-Summary"] = json.dumps({name: str(n) for name, n in figures.items()})

    def whole(self, body: bytes = b"") -> web.Response:
        return web.Response(body=body, headers=self.headers)

    async def stream(
        self, first: list[bytes], following: Next, encoder: Encoder | None
    ) -> web.StreamResponse:
        """Send `first` and then whatever `following` gives, until it gives nothing.

        An error on the way is written into the body between the marks ClickHouse uses for it, and the
        connection is cut, so that no client can take a part for the whole.
        """
        response = web.StreamResponse(headers=self.headers)
        response.enable_chunked_encoding()
        await response.prepare(self._request)
        try:
            for part in first:
                await response.write(_encoded(encoder, part))
            while part := await following():
                await response.write(_encoded(encoder, part))
            if encoder is not None:
                await response.write(encoder.finish())
            await response.write_eof()
        except EngineError as error:
            await self._break_off(response, encoder, error)
        return response

    async def _break_off(
        self, response: web.StreamResponse, encoder: Encoder | None, error: EngineError
    ) -> None:
        text = error.body.encode()
        mark = self._tag.encode()
        report = b"\r\n__exception__\r\n%b\r\n%b%d %b\r\n__exception__\r\n" % (mark, text, len(text), mark)
        await response.write(_encoded(encoder, report) + (encoder.finish() if encoder else b""))
        transport = self._request.transport
        if transport is not None:
            transport.close()


def _encoded(encoder: Encoder | None, part: bytes) -> bytes:
    return encoder.feed(part) if encoder else part


def encoder_for(request: web.Request, *, compressed: bool) -> Encoder | None:
    return response_encoder(request.headers.get("Accept-Encoding", "")) if compressed else None
