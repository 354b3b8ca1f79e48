"""The way past the router: a path without parameters leads to its doors in one look-up instead of a pattern a route.

With thirty routes, trying them one by one is the largest part of a request's cost here. Whatever is not a plain path
and a method of its own, refusals included, goes through the router as ever.
"""

from collections.abc import Iterable

from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send


class Shortcuts:
    """The innermost middleware. The envelope around it turns what doors raise into answers."""

    def __init__(self, app: ASGIApp, *, routes: Iterable[BaseRoute]) -> None:
        self._app = app
        self._doors = {
            (route.path, method): route.app
            for route in routes
            if isinstance(route, Route) and "{" not in route.path
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        door = None
        if scope["type"] == "http" and not scope.get("root_path"):
            door = self._doors.get((scope["path"], scope["method"]))
        if door is None:
            await self._app(scope, receive, send)
            return
        scope["path_params"] = {}
        await door(scope, receive, send)
