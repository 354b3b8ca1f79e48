"""A route's door: authenticate, authorise, bound the body and the time, then call the handler."""

import asyncio
from collections.abc import Mapping

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from core.errors.exceptions import Unavailable
from gateway.authentication import authenticate, authorise
from gateway.bodies import read_body
from gateway.idempotency import answered_once
from gateway.routing import Call, Endpoint, Services


class Door:
    """The ASGI application of one endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self.endpoint
        scope["state"]["route"] = endpoint.path
        request = Request(scope, receive)
        services: Services = scope["app"].state.services
        try:
            async with asyncio.timeout(endpoint.deadline_s):
                principal = await authenticate(endpoint.access, request, services)
                scope["state"]["principal"] = principal
                authorise(endpoint.access, principal)
                body = await read_body(request, endpoint.body_bytes_max)
                call = Call(request=request, body=body, principal=principal, services=services)
                if endpoint.idempotent:
                    response = await answered_once(endpoint.handler, call)
                else:
                    response = await endpoint.handler(call)
        except TimeoutError as e:
            raise Unavailable("the answer was not ready in time", code="DEADLINE_EXCEEDED") from e
        await response(scope, receive, send)


class Doors:
    """The doors of one path, by method. One route has them all, so that a refused method is told the others."""

    def __init__(self, doors: Mapping[str, Door]) -> None:
        self._doors = doors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        await self._doors[method](scope, receive, send)
