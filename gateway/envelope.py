"""The envelope: turns every error into a problem, and adds the headers all answers carry."""

from collections.abc import Mapping
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.infrastructure import error_handler
from gateway.problems import Challenged, http_problem, problem

Headers = tuple[tuple[bytes, bytes], ...]

SECURITY_HEADERS: Final[Headers] = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; base-uri 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
    # Otherwise the server would name itself and what it is built with.
    (b"server", b"tickgate"),
)
TRANSPORT_SECURITY: Final[Headers] = ((b"strict-transport-security", b"max-age=31536000; includeSubDomains"),)
"""Only over TLS, ours or a trusted proxy's: over plain HTTP it must not be sent. Source: RFC 6797 section 7.2."""
SECURED_HEADERS: Final[Headers] = SECURITY_HEADERS + TRANSPORT_SECURITY
NAMES: Final = frozenset(name for name, _ in SECURED_HEADERS)


class Envelope:
    """Pure ASGI, because a wrapper that rebuilds requests costs five times the handler."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        await self._answer(
            scope, receive, _Sender(send, scope["state"], secure=scope.get("scheme") == "https")
        )

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

    __slots__ = ("_headers", "_send", "_state", "status")

    def __init__(self, send: Send, state: Mapping[str, Any], *, secure: bool) -> None:
        self._send = send
        self._state = state
        self.status = 0
        self._headers = SECURED_HEADERS if secure else SECURITY_HEADERS

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            present = {name for name, _ in message.get("headers", ())}
            ours = self._headers
            if not NAMES.isdisjoint(present):
                ours = tuple(header for header in ours if header[0] not in present)
            limits = self._state.get("limit_headers", ())
            message = {**message, "headers": [*message.get("headers", ()), *ours, *limits]}
        await self._send(message)
