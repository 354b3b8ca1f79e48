"""A route's door: authenticate, limit, authorise, bound the body and the time, then call the handler."""

import asyncio
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from core.errors.exceptions import Unavailable
from core.model.principals import Principal
from gateway.authentication import authenticate, authorise
from gateway.bodies import read_body
from gateway.idempotency import answered_once, answered_within
from gateway.limits import Limits, caller_of, share_of
from gateway.problems import Challenged
from gateway.routing import Call, Endpoint, RateClass, Services


class Door:
    """The ASGI application of one endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self.endpoint
        scope["state"]["route"] = endpoint.path
        request = Request(scope, receive)
        services: Services = scope["app"].state.services
        places = Places(services.limits)
        try:
            # An answer that is still being sent keeps its places.
            response = await self._answered(request, services, places)
            await response(scope, receive, send)
        finally:
            places.leave()

    async def _answered(self, request: Request, services: Services, places: "Places") -> Response:
        endpoint = self.endpoint
        try:
            async with asyncio.timeout(endpoint.deadline_s):
                principal = await self._let_in(request, services, places)
                authorise(endpoint.access, principal)
                body = await read_body(request, endpoint.body_bytes_max)
                if endpoint.body_bytes_max and principal is not None:
                    # A body can be withheld for seconds, in which its credential may have been revoked.
                    principal = await authenticate(endpoint.access, request, services)
                    authorise(endpoint.access, principal)
                call = Call(request=request, body=body, principal=principal, services=services)
                if endpoint.idempotent:
                    once = answered_within if endpoint.atomic else answered_once
                    return await once(endpoint.handler, call)
                return await endpoint.handler(call)
        except TimeoutError as e:
            raise Unavailable("the answer was not ready in time", code="DEADLINE_EXCEEDED") from e

    async def _let_in(self, request: Request, services: Services, places: "Places") -> Principal | None:
        """Authenticate and count. What says whether we live is never limited."""
        endpoint, limits = self.endpoint, services.limits
        if endpoint.rate is RateClass.UNLIMITED:
            return await authenticate(endpoint.access, request, services)
        places.take()
        try:
            principal = await authenticate(endpoint.access, request, services)
        except Challenged:
            await limits.admit_failure(request)
            raise
        request.scope["state"]["principal"] = principal
        caller = caller_of(request)
        await limits.admit(request, caller, endpoint.rate)
        places.take_of(caller, share_of(request))
        return principal


class Places:
    """What one request occupies while it is answered: places of the process, its caller and its tenant."""

    __slots__ = ("_limits", "_names", "_taken")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._taken = False
        self._names: tuple[str, str] | None = None

    def take(self) -> None:
        self._limits.take_place()
        self._taken = True

    def take_of(self, caller: str, share: str) -> None:
        self._limits.take_place_of(caller, share)
        self._names = caller, share

    def leave(self) -> None:
        if self._names is not None:
            self._limits.leave_place_of(*self._names)
        if self._taken:
            self._limits.leave_place()


class Doors:
    """The doors of one path, by method. One route has them all, so that a refused method is told the others."""

    def __init__(self, doors: Mapping[str, Door]) -> None:
        self._doors = doors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        await self._doors[method](scope, receive, send)
