"""The outermost middleware: trace, measure, turn every error into a problem, and add the headers all answers carry."""

import time
from typing import Final

import structlog
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.infrastructure import error_handler
from core.telemetry import metrics, tracing
from gateway.problems import Challenged, http_problem, problem

log = structlog.get_logger(__name__)

UNMATCHED: Final = "unmatched"
SECURITY_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
    # Otherwise the server would name itself and what it is built with.
    (b"server", b"tickgate"),
)
TRANSPORT_SECURITY: Final = ((b"strict-transport-security", b"max-age=31536000; includeSubDomains"),)
"""Only over TLS, ours or a trusted proxy's: over plain HTTP it must not be sent. Source: RFC 6797 section 7.2."""


class Envelope:
    """Pure ASGI, because a wrapper that rebuilds requests costs five times the handler."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s = time.perf_counter()
        trace = tracing.start(_header(scope, b"traceparent"))
        scope.setdefault("state", {})["route"] = UNMATCHED
        sender = _Sender(send, trace, secure=scope.get("scheme") == "https")
        metrics.HTTP_IN_FLIGHT.inc()
        try:
            await self._answer(scope, receive, sender)
        finally:
            metrics.HTTP_IN_FLIGHT.dec()
            _record(scope, sender.status, time.perf_counter() - started_s)

    async def _answer(self, scope: Scope, receive: Receive, sender: "_Sender") -> None:
        try:
            await self._app(scope, receive, sender)
        except HTTPException as e:
            await http_problem(e)(scope, receive, sender)
        except Exception as e:
            cause = e.error if isinstance(e, Challenged) else e
            report = error_handler.report(cause, route=scope["state"]["route"], method=scope["method"])
            if sender.status:
                # The answer has begun: breaking it off is all that is left.
                raise
            await problem(report, e)(scope, receive, sender)


class _Sender:
    """Adds our headers to the start of the answer and remembers its status."""

    __slots__ = ("_headers", "_send", "status")

    def __init__(self, send: Send, trace: tracing.Trace, *, secure: bool) -> None:
        self._send = send
        self.status = 0
        self._headers = (
            *SECURITY_HEADERS,
            *(TRANSPORT_SECURITY if secure else ()),
            (b"traceresponse", trace.traceparent.encode()),
            (b"x-request-id", trace.trace_id.encode()),
        )

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            present = {name for name, _ in headers}
            headers += [header for header in self._headers if header[0] not in present]
            message = {**message, "headers": headers}
        await self._send(message)


def _header(scope: Scope, name: bytes) -> str:
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return ""


def _record(scope: Scope, status: int, elapsed_s: float) -> None:
    route = scope["state"]["route"]
    metrics.HTTP_REQUESTS.labels(route, str(status)).inc()
    metrics.HTTP_SECONDS.labels(route).observe(elapsed_s)
    log.debug(
        "http.answered", route=route, method=scope["method"], status=status, ms=round(elapsed_s * 1_000, 2)
    )
