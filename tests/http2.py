"""Just enough of an HTTP/2 client to misbehave: frames by hand, headers as they are. Source: RFC 9113, RFC 7541."""

import socket
import ssl
import struct
from collections.abc import Iterator
from dataclasses import dataclass

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 7, 8, 9
END_STREAM, END_HEADERS = 1, 4
MAX_CONCURRENT_STREAMS, MAX_HEADER_LIST_SIZE = 3, 6
FRAME_BYTES_MAX = 16_384


@dataclass(frozen=True)
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, stream: int = 0, payload: bytes = b"", flags: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def block(*headers: tuple[bytes, bytes]) -> bytes:
    """Return a header block of literals that nobody indexes."""
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in headers)


def get(path: bytes = b"/livez", authority: bytes = b"localhost", *more: tuple[bytes, bytes]) -> bytes:
    pseudo = ((b":method", b"GET"), (b":scheme", b"https"), (b":path", path), (b":authority", authority))
    return block(*pseudo, *more)


def _text(value: bytes) -> bytes:
    if len(value) < 127:
        return bytes((len(value),)) + value
    rest, length = len(value) - 127, bytearray((127,))
    while rest >= 128:
        length.append(rest % 128 + 128)
        rest //= 128
    return bytes(length) + bytes((rest,)) + value


class Connection:
    """One connection; what it sends is up to the test."""

    def __init__(self, port: int, context: ssl.SSLContext, timeout_s: float = 10.0) -> None:
        context.set_alpn_protocols(["h2"])
        raw = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self._socket = context.wrap_socket(raw, server_hostname="localhost")
        assert self._socket.selected_alpn_protocol() == "h2"
        self.send(PREFACE + frame(SETTINGS))

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError:  # hung up on: what it said before is what counts
            return

    def request(self, stream: int, headers: bytes, body: bytes | None = None) -> None:
        self.send(frame(HEADERS, stream, headers, END_HEADERS | (END_STREAM if body is None else 0)))
        if body is not None:
            self.send(frame(DATA, stream, body, END_STREAM))

    def frames(self) -> Iterator[Frame]:
        """Yield what comes until the other side hangs up, or is silent for too long."""
        buffer = b""
        while True:
            while len(buffer) >= 9 and len(buffer) >= 9 + (length := int.from_bytes(buffer[:3])):
                head, payload, buffer = buffer[:9], buffer[9 : 9 + length], buffer[9 + length :]
                yield Frame(head[3], head[4], int.from_bytes(head[5:9]) & 0x7FFFFFFF, payload)
            try:
                chunk = self._socket.recv(65_536)
            except OSError:
                return
            if not chunk:
                return
            buffer += chunk

    def answer(self, stream: int) -> tuple[bytes, bytes]:
        """Return the header block and the body of a stream; nothing when it is reset or the connection ends."""
        headers = body = b""
        for one in self.frames():
            if one.kind == GOAWAY or (one.stream == stream and one.kind == RESET):
                return b"", b""
            if one.stream == stream and one.kind == HEADERS:
                headers += one.payload
            if one.stream == stream and one.kind == DATA:
                body += one.payload
            if one.stream == stream and one.kind in {HEADERS, DATA} and one.flags & END_STREAM:
                break
        return headers, body

    def goodbye(self) -> int | None:
        """Return the error of the GOAWAY that ends the connection, or None when there is none."""
        return next((int.from_bytes(one.payload[4:8]) for one in self.frames() if one.kind == GOAWAY), None)
