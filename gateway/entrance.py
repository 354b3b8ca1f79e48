"""What is turned away before anybody looks who it is: requests that two readers could read differently.

The HTTP parser (hyper, under granian) refuses malformed requests by itself and closes. This is the rest: what it lets
through and RFC 9112 would have refused, and what our routes should never have to think about.
"""

import re
from collections.abc import Collection
from functools import lru_cache
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from core.errors.exceptions import Invalid, NotFound
from core.infrastructure.exposure import LOCAL_NAMES, is_address, name_in

TARGET_BYTES_MAX: Final = 16 * 1024
"""Of path and query together; no parameter of ours is longer than half of it."""
HOSTS_REMEMBERED_MAX: Final = 1_024
OLD_VERSIONS: Final = frozenset({"1", "1.0"})
BAD_HOST: Final = "BAD_HOST"
NOT_OUR_HOST: Final = "NOT_OUR_HOST"
_TEXTS: Final = {
    BAD_HOST: "exactly one Host header is needed",
    NOT_OUR_HOST: "this is not the host you are looking for",
}
_HOST: Final = re.compile(rb"([A-Za-z0-9_.-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{0,5})?")
# NUL and other control characters, and what stands for bytes that are no UTF-8 (overlong encodings among them).
_NO_TEXT: Final = re.compile("[\x00-\x1f\x7f-\x9f\ufffd]")


class Entrance:
    """Refuses what is ambiguous. hosts: the names we answer to, or None for any.

    Names matter even where nothing is built from them: a page on a name that its owner points at 127.0.0.1 is, to
    a browser on this machine, of the same origin as we are. Addresses are always answered to: a page cannot have ours.
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str] | None) -> None:
        self._app = app
        self._code = lru_cache(HOSTS_REMEMBERED_MAX)(lambda host: _code_of(host, hosts))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if scope["method"] == "CONNECT":
                raise Invalid("this is no proxy", code="BAD_FRAMING")
            _check_target(scope)
            self._check_headers(scope)
        await self._app(scope, receive, send)

    def _check_headers(self, scope: Scope) -> None:
        hosts = []
        for name, value in scope["headers"]:
            if name == b"host":
                hosts.append(value)
            elif name == b"transfer-encoding" and value.lower() != b"chunked":
                raise Invalid("the only transfer coding is chunked, alone", code="BAD_FRAMING")
        code = self._code(hosts[0]) if len(hosts) == 1 else BAD_HOST
        # A probe that still speaks HTTP/1.0 may leave it out; granian then passes an empty one on.
        if code and not (scope["http_version"] in OLD_VERSIONS and hosts in ([], [b""])):
            raise Invalid(_TEXTS[code], code=code)


def _check_target(scope: Scope) -> None:
    if len(scope.get("raw_path") or scope["path"]) + len(scope["query_string"]) > TARGET_BYTES_MAX:
        raise Invalid(f"path and query may hold at most {TARGET_BYTES_MAX} bytes", code="URI_TOO_LONG")
    path = scope["path"]
    plain = path.isascii() and path.isprintable()
    if not path.startswith("/") or (not plain and _NO_TEXT.search(path)):
        raise NotFound("there is no such path", code="NO_SUCH_ROUTE")


def _code_of(host: bytes, names: Collection[str] | None) -> str:
    """Return what is wrong with a Host header, or nothing. names: those we answer to, or None for any."""
    if not _HOST.fullmatch(host):
        return BAD_HOST
    name = name_in(host.decode("ascii"))
    ours = names is None or name in names or name in LOCAL_NAMES or is_address(name)
    return "" if ours else NOT_OUR_HOST
