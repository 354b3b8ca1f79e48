"""Cross-origin calls: which web pages may read our answers. Source: Fetch standard, section 3.3 (CORS protocol).

Two pieces, because every answer carries the headers, errors and refusals included, while a preflight is answered inside
the envelope like anything else. Starlette's middleware answers preflights in plain text, outside of it.

There is no credentials mode: tokens travel in a header that a page has to set itself, so there is nothing a browser
would send along by itself, and nothing for a foreign page to ride on.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors.exceptions import Forbidden, Misconfigured

PREFLIGHT_TTL_S: Final = 600
PREFLIGHT_ROUTE: Final = "preflight"
REQUEST_HEADERS: Final = (
    "Accept",
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-Match",
    "If-None-Match",
    "Last-Event-ID",
    "Prefer",
    "X-API-Key",
    "traceparent",
    "tracestate",
    "X-API-Key",
)
EXPOSED_HEADERS: Final = (
    "Content-Disposition",
    "ETag",
    "Idempotency-Replayed",
    "Link",
    "Location",
    "Preference-Applied",
    "RateLimit",
    "RateLimit-Limit",
    "RateLimit-Policy",
    "RateLimit-Remaining",
    "RateLimit-Reset",
    "Retry-After",
    "traceresponse",
    "WWW-Authenticate",
    "X-Next-Cursor",
    "X-Request-Id",
)
SAFELISTED: Final = frozenset({"accept", "accept-language", "content-language", "content-type", "range"})
_ORIGIN: Final = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?")
_DEFAULT_PORT: Final = re.compile(r"http:.*:80|https:.*:443")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """origins: exact ones, as browsers write them. methods: those of the catalogue."""

    origins: frozenset[bytes]
    methods: frozenset[bytes]


def policy_of(origins: Iterable[str], methods: Iterable[str]) -> Policy:
    """Raises: Misconfigured: an origin is a pattern, or not written as a browser writes it."""
    for origin in origins:
        if not _ORIGIN.fullmatch(origin) or _DEFAULT_PORT.fullmatch(origin):
            raise Misconfigured(
                f"{origin!r} is no origin: https://app.example.com, lower case, without path, default port or pattern",
                code="BAD_CORS_ORIGIN",
            )
    return Policy(
        origins=frozenset(origin.encode() for origin in origins),
        methods=frozenset(method.encode() for method in methods),
    )


class CrossOriginHeaders:
    """Outside the envelope: adds to every answer whether the page that asked may read it."""

    def __init__(self, app: ASGIApp, *, policy: Policy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = self._headers(scope)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *headers]}
            await send(message)

        await self._app(scope, receive, with_headers)

    def _headers(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        # A cache must not hand one page's permission to another, nor its absence.
        headers = [(b"vary", b"Origin")]
        origin = header(scope, b"origin")
        if origin in self._policy.origins:
            headers.append((b"access-control-allow-origin", origin))
            headers.append((b"access-control-expose-headers", ", ".join(EXPOSED_HEADERS).encode()))
        return headers


class Preflights:
    """Inside the envelope: answers what a browser asks before it sends the request itself."""

    def __init__(self, app: ASGIApp, *, policy: Policy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "OPTIONS":
            await self._app(scope, receive, send)
            return
        origin, method = header(scope, b"origin"), header(scope, b"access-control-request-method")
        if not origin or not method:
            await self._app(scope, receive, send)
            return
        scope["state"]["route"] = PREFLIGHT_ROUTE
        asked = header(scope, b"access-control-request-headers").decode("latin-1").lower().split(",")
        unknown = {name.strip() for name in asked} - _ALLOWED - {""}
        if origin not in self._policy.origins or method not in self._policy.methods or unknown:
            raise Forbidden("a page of that origin may not send that request", code="CROSS_ORIGIN_REFUSED")
        await Response(status_code=204, headers=self._permission())(scope, receive, send)

    def _permission(self) -> dict[str, str]:
        return {
            "Access-Control-Allow-Methods": ", ".join(sorted(one.decode() for one in self._policy.methods)),
            "Access-Control-Allow-Headers": ", ".join(REQUEST_HEADERS),
            "Access-Control-Max-Age": str(PREFLIGHT_TTL_S),
        }


_ALLOWED: Final = SAFELISTED | {name.lower() for name in REQUEST_HEADERS}


def header(scope: Scope, name: bytes) -> bytes:
    """Return a header that may be there once; nothing when it is not, or twice."""
    values = [value for key, value in scope["headers"] if key == name]
    return bytes(values[0]) if len(values) == 1 else b""
