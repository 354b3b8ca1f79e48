"""What is turned away before anybody looks who it is: requests that two readers could read differently.

The HTTP parser (hyper, under granian) refuses malformed requests by itself and closes. This is the rest: what it lets
through and RFC 9112 would have refused, and what our routes should never have to think about.
"""

import re
from collections.abc import Collection
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from core.errors.exceptions import Invalid, NotFound

TARGET_BYTES_MAX: Final = 16 * 1024
"""Of path and query together; no parameter of ours is longer than half of it."""
HOSTS_REMEMBERED_MAX: Final = 1_024
OLD_VERSIONS: Final = frozenset({"1", "1.0"})
LOCAL_NAMES: Final = frozenset({"localhost"})
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
        self._is_ours = lru_cache(HOSTS_REMEMBERED_MAX)(lambda host: hosts is None or _is_one_of(host, hosts))

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
        if len(hosts) > 1 or not _HOST.fullmatch(hosts[0] if hosts else b""):
            # A probe that still speaks HTTP/1.0 may leave it out; granian then passes an empty one on.
            if scope["http_version"] in OLD_VERSIONS and hosts in ([], [b""]):
                return
            raise Invalid("exactly one Host header is needed", code="BAD_HOST")
        if not self._is_ours(hosts[0]):
            raise Invalid("this is not the host you are looking for", code="NOT_OUR_HOST")


def _check_target(scope: Scope) -> None:
    if len(scope.get("raw_path") or scope["path"]) + len(scope["query_string"]) > TARGET_BYTES_MAX:
        raise Invalid(f"path and query may hold at most {TARGET_BYTES_MAX} bytes", code="URI_TOO_LONG")
    if not scope["path"].startswith("/") or _NO_TEXT.search(scope["path"]):
        raise NotFound("there is no such path", code="NO_SUCH_ROUTE")


def _is_one_of(host: bytes, names: Collection[str]) -> bool:
    name = host.decode("ascii").lower()
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    try:
        ip_address(name)
    except ValueError:
        return name.rstrip(".") in names or name in LOCAL_NAMES
    return True
