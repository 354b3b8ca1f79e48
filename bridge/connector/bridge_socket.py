"""The socket to the bridge: frames in are handled at once, on the event loop; nothing here waits."""

import asyncio
from collections.abc import Callable

from picows import WSFrame, WSListener, WSMsgType, WSTransport

from core.errors.exceptions import TickgateError, Unavailable
from core.messages import wire
from core.messages.wire import FrameType, Nack, Resume

OnOrder = Callable[[memoryview, Callable[[bytes], None]], None]
"""Takes the body of an ORDER, and how its reply is sent."""


class Refused(TickgateError):
    """The bridge ended the connection and said why."""

    def __init__(self, nack: Nack) -> None:
        super().__init__(nack.message, code=nack.code.value)
        self.nack = nack


class Wire(WSListener):
    """The socket: frames in are handled at once, on the event loop; nothing here waits."""

    def __init__(
        self,
        on_ack: Callable[[int], None],
        on_nack: Callable[[Nack], None],
        on_order: OnOrder,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.resumed: asyncio.Future[Resume] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.writable = asyncio.Event()
        self.writable.set()
        self.ponged = asyncio.Event()
        self.pings = 0
        self.pongs = 0
        self.heard_at_s = loop.time()
        self._loop = loop
        self._on_ack = on_ack
        self._on_nack = on_nack
        self._on_order = on_order
        self._transport: WSTransport | None = None

    @property
    def opened(self) -> bool:
        """Whether the connection has ever stood."""
        return self._transport is not None

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.end(Unavailable("the bridge closed the connection", code="DISCONNECTED"))

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self.heard_at_s = self._loop.time()
        if frame.msg_type is WSMsgType.CLOSE:
            transport.disconnect()
        elif frame.msg_type is WSMsgType.BINARY:
            try:
                self._on_frame(frame.get_payload_as_bytes())
            except TickgateError as e:
                self.end(e)

    def _on_frame(self, frame: bytes) -> None:
        kind = wire.frame_type(frame)
        if kind is FrameType.ACK:
            self._on_ack(wire.decode_ack(frame))
        elif kind is FrameType.PONG:
            self.pongs += 1
            self.ponged.set()
        elif kind is FrameType.NACK:
            nack = wire.decode_json(frame, Nack)
            if nack.code in wire.CLOSE_CODES:
                self.end(Refused(nack))
            else:
                self._on_nack(nack)
        elif kind is FrameType.ORDER:
            self._on_order(wire.body_of(frame), self._send_reply)
        elif kind is FrameType.RESUME and not self.resumed.done():
            self.resumed.set_result(wire.decode_json(frame, Resume))

    def end(self, reason: TickgateError) -> None:
        """The connection is over; the first reason is the one that counts."""
        if not self.ended.done():
            self.ended.set_exception(reason)
        self.writable.set()

    def send(self, frame: bytes) -> None:
        if self._transport is not None and not self.ended.done():
            self._transport.send(WSMsgType.BINARY, frame)

    def _send_reply(self, body: bytes) -> None:
        self.send(wire.encode_body(FrameType.ORDER_REPLY, body))

    def ping(self) -> int:
        """Send a PING and return its number."""
        self.pings += 1
        self.send(wire.encode_json(FrameType.PING))
        return self.pings

    def disconnect(self, *, graceful: bool) -> None:
        if self._transport is not None:
            self._transport.disconnect(graceful=graceful)
