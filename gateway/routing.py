"""A route's door: authenticate, authorise, bound the body and the time, then call the handler."""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from core.errors.exceptions import Forbidden, Invalid, Unauthorized, Unavailable
from core.model.principals import Principal
from core.ports import Identity, JobQueue, TokenVerifier
from core.settings import Settings
from gateway.problems import Challenged
from gateway.signing import TokenSigner

BODY_TIMEOUT_S: Final = 5.0
LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "::ffff:127.0.0.1"})
PROXY_HEADERS: Final = ("x-forwarded-for", "forwarded", "x-real-ip")


class Access(StrEnum):
    """Who may come in without a scope. Everything else names the scope it needs."""

    PUBLIC = "anyone"
    AUTHENTICATED = "any valid token"
    OPERATOR = "this machine, or the metrics token"


class Scope(StrEnum):
    """What a token may allow."""

    MARKET_READ = "market:read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What handlers work with. unhealthy: names what is not there, or nothing."""

    settings: Settings
    queue: JobQueue
    identity: Identity
    verifier: TokenVerifier
    signer: TokenSigner
    unhealthy: Callable[[], Awaitable[Mapping[str, str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request that was let in. principal: None on routes that need no token."""

    request: Request
    body: bytes
    principal: Principal | None
    services: Services

    @property
    def caller(self) -> Principal:
        assert self.principal is not None, "only routes that demand a token ask for the caller"
        return self.principal


Handler = Callable[[Call], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One row of the route catalogue. access: a scope, or why none is needed; there is no default on purpose.

    body_bytes_max: 0 refuses a body; deadline_s: the whole call's.
    """

    method: str
    path: str
    handler: Handler
    access: Access | Scope
    body_bytes_max: int = 0
    deadline_s: float = 10.0


class Door:
    """The ASGI application of one endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        scope["state"]["route"] = self.endpoint.path
        request = Request(scope, receive)
        services: Services = scope["app"].state.services
        try:
            async with asyncio.timeout(self.endpoint.deadline_s):
                principal = _admit(self.endpoint.access, request, services)
                body = await _read_body(request, self.endpoint.body_bytes_max)
                call = Call(request=request, body=body, principal=principal, services=services)
                response = await self.endpoint.handler(call)
        except TimeoutError as e:
            raise Unavailable("the answer was not ready in time", code="DEADLINE_EXCEEDED") from e
        await response(scope, receive, send)


def _admit(access: Access | Scope, request: Request, services: Services) -> Principal | None:
    if access is Access.PUBLIC:
        return None
    if access is Access.OPERATOR:
        _require_operator(request, services.settings.gateway.metrics_token.reveal())
        return None
    principal = _authenticate(request, services.verifier)
    if isinstance(access, Scope) and access not in principal.scopes:
        raise Challenged(
            Forbidden(f"this needs a token with the scope {access}", code="INSUFFICIENT_SCOPE"),
            f'Bearer realm="tickgate", error="insufficient_scope", scope="{access}"',
        )
    return principal


def _authenticate(request: Request, verifier: TokenVerifier) -> Principal:
    token = _bearer(request)
    if not token:
        raise Challenged(
            Unauthorized("an access token is needed: Authorization: Bearer ...", code="TOKEN_MISSING"),
            'Bearer realm="tickgate"',
        )
    try:
        return verifier.verify(token)
    except Unauthorized as e:
        raise Challenged(e, 'Bearer realm="tickgate", error="invalid_token"') from e


def _bearer(request: Request) -> str:
    values = request.headers.getlist("authorization")
    scheme, _, token = (values[0] if len(values) == 1 else "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _require_operator(request: Request, metrics_token: str) -> None:
    token = _bearer(request)
    if metrics_token and token and hmac.compare_digest(token.encode(), metrics_token.encode()):
        return
    # A proxy on this machine makes the whole world look local.
    proxied = any(name in request.headers for name in PROXY_HEADERS)
    if request.client is not None and request.client.host in LOOPBACK and not proxied:
        return
    raise Forbidden("only for operators", code="OPERATORS_ONLY")


async def _read_body(request: Request, bytes_max: int) -> bytes:
    if bytes_max == 0:
        return b""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Invalid("encoded bodies are not taken", code="BODY_ENCODED")
    if (
        int(length) > bytes_max
        if (length := request.headers.get("content-length", "")).isdecimal()
        else False
    ):
        raise _too_large(bytes_max)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > bytes_max:
                    raise _too_large(bytes_max)
    except TimeoutError as e:
        raise Invalid(f"the body did not arrive within {BODY_TIMEOUT_S:g} s", code="BODY_TOO_SLOW") from e
    except ClientDisconnect as e:
        raise Invalid("the body ended too early", code="BODY_TOO_SLOW") from e
    return bytes(body)


def _too_large(bytes_max: int) -> Invalid:
    return Invalid(f"the body may hold at most {bytes_max} bytes", code="BODY_TOO_LARGE")
