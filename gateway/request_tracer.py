"""RequestTracer, the outermost middleware: every request is a hop of a trace, measured, and one line of the access log.

Source: https://www.w3.org/TR/trace-context/. The trace goes on from here in every log line and error, in the job, in
PostgreSQL's `application_name` and in ClickHouse's query id. `tracestate` is read by nobody here and there is no
further hop over HTTP that it could be handed to, so it ends here.
"""

import time
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.telemetry import lines, metrics, tracing
from gateway import access_log

UNMATCHED: Final = "unmatched"
TRACEPARENT: Final = b"traceparent"
SERIES_MAX: Final = 4_096


class RequestTracer:
    """Pure ASGI, because a wrapper that rebuilds requests costs five times the handler.

    A route writes its template to `scope["state"]["route"]`, whoever authenticates the caller to "principal".
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._writes = lines.wanted()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s = time.perf_counter()
        trace = tracing.start(_traceparent(scope["headers"]))
        state = scope.setdefault("state", {})
        state["route"] = UNMATCHED
        sender = _Sender(send, trace)
        metrics.HTTP_IN_FLIGHT.inc()
        try:
            await self._app(scope, receive, sender)
        finally:
            metrics.HTTP_IN_FLIGHT.dec()
            elapsed_s = time.perf_counter() - started_s
            requests, seconds = _series(state["route"], sender.status)
            requests.inc()
            seconds.observe(elapsed_s)
            if self._writes:
                access_log.write(
                    scope, trace, status=sender.status, elapsed_s=elapsed_s, bytes_sent=sender.bytes_sent
                )


@lru_cache(SERIES_MAX)
def _series(route: str, status: int) -> tuple[Counter, Histogram]:
    # Finding a labelled series costs as much as counting in it.
    return metrics.HTTP_REQUESTS.labels(route, str(status)), metrics.HTTP_SECONDS.labels(route)


class _Sender:
    """Adds the trace to the start of the answer and remembers what was sent."""

    __slots__ = ("_headers", "_send", "bytes_sent", "status")

    def __init__(self, send: Send, trace: tracing.Trace) -> None:
        self._send = send
        self._headers = (
            (b"traceresponse", trace.traceparent.encode()),
            (b"x-request-id", trace.trace_id.encode()),
        )
        self.status = 0
        self.bytes_sent = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message.get("headers", ()), *self._headers]}
        elif message["type"] == "http.response.body":
            self.bytes_sent += len(message.get("body", b""))
        await self._send(message)


def _traceparent(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the caller's hop; of two nobody knows which is meant."""
    given = [value for name, value in headers if name == TRACEPARENT]
    return given[0].decode("latin-1") if len(given) == 1 else ""
