"""Requests that a proxy and we could read differently, on raw sockets: refused and closed, or read as exactly one.

Each case hides a second request, for /livez, where only a wrong reading finds it: `alive` must never come back.
"""

import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests import gateways
from tests.engines import House, wait_for
from tests.gateways import FrontDoor

QUIET_S = 0.4
HIDDEN = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(HIDDEN)
FINE = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n"
EMPTY_CHUNKS = b"0\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def post(headers: bytes, body: bytes, *, line: bytes = b"POST /oauth/token HTTP/1.1") -> bytes:
    return line + b"\r\nHost: localhost\r\n" + headers + b"\r\n" + body


def get(line: bytes, headers: bytes = b"Host: localhost\r\n") -> bytes:
    return line + b"\r\n" + headers + b"\r\n"


REFUSED = {
    "both lengths, the chunks end first": post(b"Content-Length: 45\r\n" + CHUNKED, EMPTY_CHUNKS + HIDDEN),
    "both lengths, chunked first": post(CHUNKED + b"Content-Length: 5\r\n", EMPTY_CHUNKS + HIDDEN),
    "two lengths that differ": post(LENGTH + b"Content-Length: 0\r\n", HIDDEN),
    "two lengths in one header": post(b"Content-Length: 0, 0\r\n", HIDDEN),
    "a length with a plus": post(b"Content-Length: +0\r\n", HIDDEN),
    "a length with a minus": post(b"Content-Length: -1\r\n", HIDDEN),
    "a length in hexadecimal": post(b"Content-Length: 0x0\r\n", HIDDEN),
    "a length of two words": post(b"Content-Length: 0 0\r\n", HIDDEN),
    "a length beyond 64 bits": post(b"Content-Length: 18446744073709551616\r\n", HIDDEN),
    "a length beyond 63 bits": post(b"Content-Length: 18446744073709551615\r\n", HIDDEN),
    "a length of nothing": post(b"Content-Length: \r\n", HIDDEN),
    "chunked, then identity": post(b"Transfer-Encoding: chunked, identity\r\n", EMPTY_CHUNKS + HIDDEN),
    "identity, then chunked": post(b"Transfer-Encoding: identity, chunked\r\n", EMPTY_CHUNKS + HIDDEN),
    "gzip, then chunked": post(b"Transfer-Encoding: gzip, chunked\r\n", EMPTY_CHUNKS + HIDDEN),
    "chunked twice": post(b"Transfer-Encoding: chunked, chunked\r\n", EMPTY_CHUNKS + HIDDEN),
    "chunked and identity in two headers": post(
        CHUNKED + b"Transfer-Encoding: identity\r\n", EMPTY_CHUNKS + HIDDEN
    ),
    "xchunked": post(b"Transfer-Encoding: xchunked\r\n", EMPTY_CHUNKS + HIDDEN),
    "identity and a length": post(b"Transfer-Encoding: identity\r\n" + LENGTH, HIDDEN),
    "quoted chunked": post(b'Transfer-Encoding: "chunked"\r\n', EMPTY_CHUNKS + HIDDEN),
    "chunked after a vertical tab": post(b"Transfer-Encoding: \x0bchunked\r\n", EMPTY_CHUNKS + HIDDEN),
    "a space before the colon": post(b"Transfer-Encoding : chunked\r\n", EMPTY_CHUNKS + HIDDEN),
    "a folded header": post(b"Transfer-Encoding:\r\n chunked\r\n", EMPTY_CHUNKS + HIDDEN),
    "chunked in HTTP/1.0": post(CHUNKED, EMPTY_CHUNKS + HIDDEN, line=b"POST /oauth/token HTTP/1.0"),
    "a bare CR in a header": post(b"X: a\rContent-Length: 0\r\n" + LENGTH, HIDDEN),
    "a bare CR at a line's end": b"GET /nowhere HTTP/1.1\rHost: localhost\r\r" + HIDDEN,
    "a chunk larger than 64 bits": post(CHUNKED, b"fffffffffffffffff\r\n" + HIDDEN),
    "a negative chunk": post(CHUNKED, b"-1\r\n" + HIDDEN),
    "a chunk size with 0x": post(CHUNKED, b"0x0\r\n\r\n" + HIDDEN),
    "a chunk size after a space": post(CHUNKED, b" 0\r\n\r\n" + HIDDEN),
    "a huge chunk extension": post(CHUNKED, b"0;" + b"a" * 100_000 + b"\r\n\r\n" + HIDDEN),
    "a chunk extension that ends with LF": post(CHUNKED, b"2;\nxx\r\n0\r\n\r\n" + HIDDEN),
    "a chunk size that ends with LF": post(CHUNKED, b"5\nhello\r\n0\r\n\r\n" + HIDDEN),
    "a chunk without its end": post(CHUNKED, b"5\r\nhelloXX0\r\n\r\n" + HIDDEN),
    "a chunk that ends with LF": post(CHUNKED, b"5\r\nhello\n0\r\n\r\n" + HIDDEN),
    "huge trailers": post(CHUNKED, b"0\r\nX: " + b"a" * 100_000 + b"\r\n\r\n" + HIDDEN),
    "NUL in a header": post(b"X: a\x00b\r\nContent-Length: 0\r\n", HIDDEN),
    "a header name with a space": post(b"Content-Length X: 0\r\n", HIDDEN),
    "a header without a name": post(b": 0\r\n", HIDDEN),
    "a header without a colon": post(b"Content-Length\r\n", HIDDEN),
    "a first header that is indented": b"POST /oauth/token HTTP/1.1\r\n Content-Length: 0\r\n\r\n" + HIDDEN,
    "a request line with two spaces": get(b"GET  /nowhere HTTP/1.1") + HIDDEN,
    "a request line with a space at its end": get(b"GET /nowhere HTTP/1.1 ") + HIDDEN,
    "a request line with tabs": get(b"GET\t/nowhere\tHTTP/1.1") + HIDDEN,
    "a path with a space": get(b"GET /nowhere /livez HTTP/1.1") + HIDDEN,
    "a path with bytes beyond ASCII": get(b"GET /\xc0\xae HTTP/1.1") + HIDDEN,
    "a path with NUL": get(b"GET /nowhere\x00 HTTP/1.1") + HIDDEN,
    "a method that is no token": get(b"GE@T /nowhere HTTP/1.1") + HIDDEN,
    "HTTP/0.9": b"GET /livez\r\n\r\n" + HIDDEN,
    "HTTP/1.2": get(b"GET /nowhere HTTP/1.2") + HIDDEN,
    "HTTP/2.0 in words": get(b"GET /nowhere HTTP/2.0") + HIDDEN,
    "HTTP/2 without TLS": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN,
    "CONNECT": get(b"CONNECT localhost:80 HTTP/1.1") + HIDDEN,
    "no Host": get(b"GET /nowhere HTTP/1.1", b""),
    "an empty Host": get(b"GET /nowhere HTTP/1.1", b"Host: \r\n"),
    "two Hosts": get(b"GET /nowhere HTTP/1.1", b"Host: localhost\r\nHost: localhost\r\n"),
    "a Host with a path": get(b"GET /nowhere HTTP/1.1", b"Host: localhost/x\r\n"),
    "a Host that is not ours": get(b"GET /nowhere HTTP/1.1", b"Host: rebound.example\r\n"),
    "a body on a route that takes none": post(LENGTH, HIDDEN, line=b"GET /metrics HTTP/1.1"),
    "chunks on a route that takes none": post(CHUNKED, EMPTY_CHUNKS, line=b"GET /metrics HTTP/1.1"),
    "a body that is too large": post(b"Content-Length: 100000\r\n", HIDDEN),
    "an encoded body": post(b"Content-Encoding: gzip\r\n" + LENGTH, HIDDEN),
    "a hundred and one headers": get(
        b"GET /nowhere HTTP/1.1", b"Host: localhost\r\n" + b"".join(b"X%d: a\r\n" % i for i in range(100))
    ),
    "a header of 200 kB": get(b"GET /nowhere HTTP/1.1", b"Host: localhost\r\nX: " + b"a" * 200_000 + b"\r\n"),
}
"""Exactly one answer, an error, and nothing after it: or none at all."""

ONE = {
    "one length, twice": post(LENGTH + LENGTH, HIDDEN),
    "a length with zeros before it": post(b"Content-Length: 00%d\r\n" % len(HIDDEN), HIDDEN),
    "a length with blanks around it": post(b"Content-Length: \t%d \r\n" % len(HIDDEN), HIDDEN),
    "chunked after a tab": post(
        b"Transfer-Encoding:\tchunked\r\n", b"%x\r\n%s\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)
    ),
    "chunked in capitals": post(
        b"Transfer-Encoding: CHUNKED\r\n", b"%x\r\n%s\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)
    ),
    "a small chunk extension": post(CHUNKED, b"%x;a=b\r\n%s\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)),
    "trailers that look like framing": post(
        CHUNKED, b"%x\r\n%s\r\n0\r\nContent-Length: 9\r\n\r\n" % (len(HIDDEN), HIDDEN)
    ),
    "lines that end with LF": b"POST /oauth/token HTTP/1.1\nHost: localhost\n"
    + LENGTH.replace(b"\r", b"")
    + b"\n"
    + HIDDEN,
    "an absolute URI": get(b"GET http://localhost/nowhere HTTP/1.1"),
    "empty lines before the request": b"\r\n\r\n" + FINE,
    "an upgrade to HTTP/2": get(
        b"GET /nowhere HTTP/1.1",
        b"Host: localhost\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n",
    ),
    "an upgrade to a WebSocket": get(
        b"GET /nowhere HTTP/1.1",
        b"Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    ),
    "TRACE": get(b"TRACE /livez HTTP/1.1"),
    "OPTIONS of everything": get(b"OPTIONS * HTTP/1.1"),
    "a method override": get(b"POST /livez HTTP/1.1", b"Host: localhost\r\nX-HTTP-Method-Override: GET\r\n"),
    "a path override": get(b"GET /nowhere HTTP/1.1", b"Host: localhost\r\nX-Original-URL: /livez\r\n"),
}
"""Exactly one answer, and the next request on the connection gets its own."""


@dataclass(frozen=True)
class Heard:
    answers: int
    closed: bool
    all: bytes


@pytest.fixture(scope="module")
def door(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    """A gateway alone: nothing of this reaches a worker."""
    with gateways.gateway_alone(
        gateways.build(tmp_path_factory.mktemp("smuggling"), house, redis_database=6)
    ) as door:
        yield door


def say(door: FrontDoor, request: bytes) -> Heard:
    """Send, and listen until the connection is closed, or quiet after an answer."""
    heard = b""
    closed = False
    with socket.create_connection(("127.0.0.1", door.settings.gateway.port), timeout=10) as raw:
        try:
            raw.sendall(request)
            while (chunk := raw.recv(65_536)) != b"":
                heard += chunk
                raw.settimeout(QUIET_S)
            closed = True
        except TimeoutError:
            assert heard, "neither answered nor closed"
        except ConnectionError:
            closed = True
    return Heard(answers=heard.count(b"HTTP/1."), closed=closed, all=heard)


@pytest.mark.parametrize("name", REFUSED)
def test_an_ambiguous_request_is_refused_and_the_connection_closed(door: FrontDoor, name: str) -> None:
    heard = say(door, REFUSED[name])
    assert heard.closed
    assert heard.answers <= 1
    assert not heard.all or heard.all.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), heard.all
    assert b"alive" not in heard.all


@pytest.mark.parametrize("name", ONE)
def test_an_odd_request_is_read_as_exactly_one(door: FrontDoor, name: str) -> None:
    alone = say(door, ONE[name])
    assert (alone.answers, alone.closed) == (1, False), alone.all
    assert b"alive" not in alone.all
    followed = say(door, ONE[name] + HIDDEN)
    assert followed.answers == 2
    assert followed.all.endswith(b"alive\n")


def test_requests_in_a_row_are_answered_in_their_order(door: FrontDoor) -> None:
    heard = say(door, FINE + HIDDEN + FINE + HIDDEN)
    statuses = [part[:3] for part in heard.all.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"404", b"200", b"404", b"200"]


def test_nothing_after_a_refusal_is_answered(door: FrontDoor) -> None:
    heard = say(door, FINE + get(b"GET  /nowhere HTTP/1.1") + HIDDEN)
    assert [part[:3] for part in heard.all.split(b"HTTP/1.1 ")[1:]] == [b"404", b"400"]
    assert heard.closed


def test_a_body_that_was_not_read_is_not_the_next_request(door: FrontDoor) -> None:
    # Refused for its method, before anybody looks at its body; half of the body comes later.
    head = b"POST /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    assert say(door, head % len(HIDDEN) + HIDDEN).answers == 1
    heard = say(door, head % (len(HIDDEN) + 5) + b"12345")
    assert (heard.answers, heard.closed) == (1, True)


def test_who_asks_to_go_on_and_is_refused_is_not_told_to_go_on(door: FrontDoor) -> None:
    heard = say(door, post(b"Expect: 100-continue\r\nContent-Length: 100000\r\n", b""))
    assert heard.all.startswith(b"HTTP/1.1 413 ")
    assert heard.closed


def test_who_asks_to_go_on_and_may_is_told_so(door: FrontDoor) -> None:
    heard = say(door, post(b"Expect: 100-continue\r\nContent-Length: 5\r\n", b""))
    assert heard.all.startswith(b"HTTP/1.1 100 ")


def test_http_1_0_without_a_host_is_answered_and_closed(door: FrontDoor) -> None:
    heard = say(door, b"GET /livez HTTP/1.0\r\n\r\n")
    assert heard.all.startswith(b"HTTP/1.0 200 ")
    assert heard.closed


def test_the_gateway_still_serves(door: FrontDoor) -> None:
    wait_for(door.alive, "the gateway being alive")
    assert "exception" not in door.gateway.log.read_text()
