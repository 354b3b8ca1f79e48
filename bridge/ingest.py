"""One connector's connection: frames in, ACK and NACK out. Every refusal is typed and loses nothing."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final

import structlog
from picows import WSFrame, WSListener, WSMsgType, WSTransport

from bridge.admission import Admission, Refused
from bridge.allowance import Allowance
from bridge.leases import Loss
from bridge.sessions import Sessions
from bridge.sockets import closes, end
from bridge.writer import LeaseLost, SourceWriter
from core.errors.exceptions import Corrupt, Defect, Invalid, TickgateError, Unavailable
from core.messages import wire
from core.messages.wire import Batch, FrameType, Hello, Nack, NackCode, Notice, TallyFrame
from core.model.ticks import Tally, TickBlock
from core.telemetry import metrics

log = structlog.get_logger(__name__)

LEDGER_PAUSE_S: Final = 1.0
RATE_LIMITED_RETRY_MS: Final = 5_000
NOTICES_BURST: Final = 1_000
"""What a connector may have kept while it was away; it keeps no more."""
NOTICES_PER_S: Final = 0.2
CHECKSUM_MAX: Final = 2**64
DAY_MAX: Final = 2**63 // 86_400_000 + 1
CONTROL_FRAMES_PER_SECOND_MAX: Final = 200
WRITE_BUFFER_BYTES_MAX: Final = 1024 * 1024


_UNCOUNTED: Final = frozenset({FrameType.BATCH, FrameType.ORDER_REPLY})


class IngestConnection(WSListener):
    """Reads one connector. Frames are handled in order, on the event loop, without awaiting anything."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._transport: WSTransport | None = None
        self._hello: Hello | None = None
        self._admission: Admission | None = None
        self._writer: SourceWriter | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._awaits_resend = False
        self._notices = Allowance(burst=NOTICES_BURST, per_s=NOTICES_PER_S)
        self._unrecorded: dict[tuple[str, int], Tally] = {}
        self._recording = False
        self._telling: set[asyncio.Task[None]] = set()
        self._control_second = 0.0
        self._control_frames = 0
        self.closed = asyncio.Event()
        self.heard_at_s = 0.0

    # -- what the socket tells us ------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        self.heard_at_s = self._sessions.clock.monotonic_s()
        metrics.BRIDGE_CONNECTIONS.inc()
        if self._sessions.peers.admit(transport, self.heard_at_s):
            self._spawn(self._expect_hello())
        else:
            self._refuse(
                Nack(
                    code=NackCode.RATE_LIMITED, message="too many connections", retry_ms=RATE_LIMITED_RETRY_MS
                )
            )

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        metrics.BRIDGE_CONNECTIONS.dec()
        self._sessions.peers.note_known(transport)
        self.closed.set()
        # What the ledger is being told is told to the end: its connector has forgotten it by now.
        for task in self._tasks - self._telling:
            task.cancel()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self.heard_at_s = self._sessions.clock.monotonic_s()
        if closes(transport, frame) or frame.msg_type in (WSMsgType.PING, WSMsgType.PONG):
            return
        if transport.is_close_frame_sent:
            return  # refused already; what still arrives was sent before the peer knew
        try:
            if frame.msg_type is not WSMsgType.BINARY or not frame.fin:
                raise Invalid("only whole binary messages are taken", code="MALFORMED")
            self._on_frame(frame.get_payload_as_bytes())
        except Refused as e:
            self._refuse(e.nack)
        except Invalid as e:
            code = NackCode(e.code) if e.code in NackCode.__members__ else NackCode.MALFORMED
            self._refuse(Nack(code=code, message=e.public))

    # -- frames --------------------------------------------------------------------------------------

    def _on_frame(self, frame: bytes) -> None:
        kind = wire.frame_type(frame)
        if self._hello is None:
            if kind is not FrameType.HELLO:
                raise Refused(Nack(code=NackCode.HELLO_EXPECTED, message=f"HELLO comes before {kind.name}"))
            self._hello = wire.decode_json(frame, Hello)
            self._spawn(self._serve(self._hello))
        elif kind not in _UNCOUNTED and self._too_many_control_frames():
            raise _flooded()
        elif kind is FrameType.PING:
            self._send(wire.encode_json(FrameType.PONG))
        elif self._writer is None:
            raise Refused(Nack(code=NackCode.HELLO_EXPECTED, message=f"{kind.name} before RESUME"))
        elif kind is FrameType.BATCH:
            self._on_batch(frame, self._writer)
        else:
            self._on_control(kind, frame, self._writer)

    def _on_control(self, kind: FrameType, frame: bytes, writer: SourceWriter) -> None:
        if kind is FrameType.TALLY:
            self._on_tally(wire.decode_json(frame, TallyFrame), writer)
        elif kind is FrameType.NOTICE:
            self._on_notice(wire.decode_json(frame, Notice))
        elif kind is FrameType.ORDER_REPLY:
            asked = self._sessions.orders.take_reply(self._source, self, wire.body_of(frame))
            # Replies are as many as were asked for; only others count.
            if not asked and self._too_many_control_frames():
                raise _flooded()
        else:
            raise Invalid(f"a connector does not send {kind.name}", code="MALFORMED")

    def _too_many_control_frames(self) -> bool:
        if self.heard_at_s - self._control_second >= 1:
            self._control_second, self._control_frames = self.heard_at_s, 0
        self._control_frames += 1
        return self._control_frames > CONTROL_FRAMES_PER_SECOND_MAX

    def _on_batch(self, frame: bytes, writer: SourceWriter) -> None:
        try:
            batch = wire.decode_batch(frame)
        except Corrupt as e:
            self._ask_again(NackCode.BAD_CRC, e.public, writer)
            return
        if batch.first_seq > writer.expected_seq:
            self._ask_again(NackCode.GAP, f"seq {batch.first_seq} leaves a gap", writer)
        elif batch.last_seq < writer.expected_seq:
            metrics.BRIDGE_OVERLAP_ROWS.inc(len(batch.rows))
            self._send(wire.encode_ack(writer.durable_seq))
        else:
            self._take(batch, writer)

    def _take(self, batch: Batch, writer: SourceWriter) -> None:
        if not writer.fits(batch):
            raise Refused(
                Nack(
                    code=NackCode.WINDOW_EXCEEDED,
                    message="more is unacknowledged than RESUME allowed",
                    expected=writer.expected_seq,
                )
            )
        self._awaits_resend = False
        metrics.BRIDGE_OVERLAP_ROWS.inc(max(0, writer.expected_seq - batch.first_seq))
        metrics.BRIDGE_FRAMES.inc()
        writer.offer(batch)

    def _ask_again(self, code: NackCode, message: str, writer: SourceWriter) -> None:
        # Everything in flight behind a gap is refused too; one NACK is enough until it is filled.
        metrics.BRIDGE_NACKS.labels(code.value).inc()
        if code is NackCode.BAD_CRC or not self._awaits_resend:
            self._awaits_resend = True
            self._send(
                wire.encode_json(
                    FrameType.NACK, Nack(code=code, message=message, expected=writer.expected_seq)
                )
            )

    def _on_tally(self, frame: TallyFrame, writer: SourceWriter) -> None:
        if len(frame.tallies) > wire.TALLIES_MAX:
            raise Invalid(f"{len(frame.tallies)} tallies in one frame", code="TOO_LARGE")
        for item in frame.tallies:
            tally = _tally(item)
            # A tally speaks of durable ticks only, or a certificate could be red for ticks still in flight.
            if tally.last_seq <= writer.durable_seq:
                self._unrecorded[(tally.symbol, tally.day)] = tally
        if self._unrecorded and not self._recording:
            self._recording = True
            self._telling.add(self._spawn(self._record_tallies()))

    def _on_notice(self, notice: Notice) -> None:
        if not self._notices.take(self.heard_at_s):
            metrics.BRIDGE_NOTICES_DROPPED.inc()
            return
        log.warning(
            "connector.notice", source=self._source, code=notice.code.value, detail=notice.detail[:200]
        )
        self._spawn(self._record_notice(notice))

    # -- tasks ---------------------------------------------------------------------------------------

    async def _expect_hello(self) -> None:
        await asyncio.sleep(self._sessions.settings.hello_timeout_s)
        if self._hello is None:
            self._refuse(Nack(code=NackCode.HELLO_EXPECTED, message="no HELLO in time"))
            return
        await self._watch_heartbeat()

    async def _watch_heartbeat(self) -> None:
        silence_s_max = self._sessions.settings.heartbeat_ms * 3 / 1_000
        while True:
            await asyncio.sleep(silence_s_max / 3)
            silent_s = self._sessions.clock.monotonic_s() - self.heard_at_s
            # Before RESUME a connector has nothing to say.
            if self._writer is not None and silent_s > silence_s_max and self._transport is not None:
                log.warning("connector.silent", source=self._source)
                self._transport.disconnect(graceful=False)

    async def _serve(self, hello: Hello) -> None:
        try:
            async with self._sessions.session(hello, self) as (admission, writer):
                self._sessions.peers.note_known(self._transport)
                self._admission = admission
                self._writer = writer
                self._send(wire.encode_json(FrameType.RESUME, admission.resume))
                log.info(
                    "connector.resumed", source=hello.source, epoch=admission.epoch, seq=writer.expected_seq
                )
                with self._taking_orders(hello, admission):
                    await writer.run()
        except Refused as e:
            if e.nack.code is NackCode.UNAUTHORIZED:
                self._sessions.peers.note_failure(self._transport, self.heard_at_s)
            self._refuse(e.nack)
        except LeaseLost as e:
            self._refuse(Nack(code=NackCode.LEASE_LOST, message=e.public, retry_ms=1_000))
        except Unavailable as e:
            self._refuse(Nack(code=NackCode.STORE_UNAVAILABLE, message=e.public, retry_ms=1_000))
        except TickgateError as e:
            log.error("connector.failed", source=hello.source, error=str(e))
            self._refuse(Nack(code=NackCode.INTERNAL, message=e.public, retry_ms=1_000))
        except Exception:
            # The door of this connection: whatever it is, the connector is told to come back.
            log.exception("connector.defect", source=hello.source)
            self._refuse(Nack(code=NackCode.INTERNAL, message="something here is broken", retry_ms=5_000))

    @contextmanager
    def _taking_orders(self, hello: Hello, admission: Admission) -> Iterator[None]:
        if hello.orders < wire.ORDERS_VERSION:
            yield
            return
        source = admission.source
        self._sessions.orders.attach(source.name, source.tenant, hello.token, self)
        try:
            yield
        finally:
            self._sessions.orders.detach(source.name, self)

    async def _record_tallies(self) -> None:
        """Record what is unrecorded; while the ledger is away only the newest of each symbol and day is kept."""
        while self._unrecorded and self._admission is not None:
            tallies, self._unrecorded = self._unrecorded, {}
            try:
                await self._sessions.registry.record_tallies(
                    self._source, self._admission.epoch, list(tallies.values())
                )
            except Unavailable as e:
                log.warning("ledger.not_recorded", source=self._source, error=str(e))
                self._unrecorded = {**tallies, **self._unrecorded}
                if self.closed.is_set():
                    # The connector tells it again when it is back.
                    break
                await asyncio.sleep(LEDGER_PAUSE_S)
        self._recording = False

    async def _record_notice(self, notice: Notice) -> None:
        if self._admission is None:
            return
        try:
            await self._sessions.registry.record_notice(self._source, self._admission.epoch, notice)
        except Unavailable as e:
            log.warning("ledger.not_recorded", source=self._source, error=str(e))

    # -- answers -------------------------------------------------------------------------------------

    def acknowledge(self, block: TickBlock) -> None:
        """Tell the connector that everything up to the end of `block` is durable."""
        self._send(wire.encode_ack(block.last_seq))

    def send_order(self, frame: bytes) -> bool:
        """Send one frame of an order; False when this connection is over."""
        if self._transport is None or self.closed.is_set() or self._transport.is_close_frame_sent:
            return False
        self._send(frame)
        return True

    def replace(self, message: str) -> None:
        """End this connection because another one takes its place."""
        self._refuse(Nack(code=NackCode.SOURCE_BUSY, message=message))

    def lose_lease(self, why: Loss) -> None:
        if why is Loss.TOKEN_ENDED:
            message = f"the token shown for {self._source} is good no more"
            self._refuse(Nack(code=NackCode.UNAUTHORIZED, message=message))
            return
        self._refuse(Nack(code=NackCode.LEASE_LOST, message="another bridge took over", retry_ms=1_000))

    def shut_down(self) -> None:
        self._refuse(Nack(code=NackCode.SHUTTING_DOWN, message="the bridge stops", retry_ms=500))

    @property
    def _source(self) -> str:
        return self._hello.source if self._hello else ""

    def _refuse(self, nack: Nack) -> None:
        if self._transport is None or self.closed.is_set() or self._transport.is_close_frame_sent:
            return
        metrics.BRIDGE_NACKS.labels(nack.code.value).inc()
        log.info("connector.refused", source=self._source, code=nack.code.value, reason=nack.message)
        self._send(wire.encode_json(FrameType.NACK, nack))
        end(self._transport, wire.CLOSE_CODES[nack.code], nack.code.value)

    def _send(self, frame: bytes) -> None:
        if self._transport is None:
            raise Defect("nothing is sent before the connection stands")
        if self.closed.is_set():
            return
        self._transport.send(WSMsgType.BINARY, frame)
        if self._transport.underlying_transport.get_write_buffer_size() > WRITE_BUFFER_BYTES_MAX:
            # It asks and does not listen; what it sent is safe or will be sent again.
            log.warning("connector.does_not_read", source=self._source)
            self._transport.disconnect(graceful=False)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._telling.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("connector.task_failed", source=self._source, error=repr(error)[:300])


def _flooded() -> Refused:
    return Refused(Nack(code=NackCode.WINDOW_EXCEEDED, message="too many control frames a second"))


def _tally(item: wire.TallyItem) -> Tally:
    try:
        checksum = int(item.checksum, 16)
    except ValueError as e:
        raise Invalid(f"checksum {item.checksum!r} is not hexadecimal", code="MALFORMED") from e
    if not (0 <= checksum < CHECKSUM_MAX and 0 < item.first_seq <= item.last_seq < 2**63 and item.rows > 0):
        raise Invalid(
            f"a tally of {item.rows} rows, seq {item.first_seq} to {item.last_seq}", code="MALFORMED"
        )
    if (
        abs(item.day) > DAY_MAX
        or item.rows >= 2**63
        or not 1 <= len(item.symbol.encode()) <= wire.SYMBOL_BYTES_MAX
    ):
        raise Invalid(f"a tally of symbol {item.symbol!r} on day {item.day}", code="MALFORMED")
    return Tally(
        symbol=item.symbol,
        day=item.day,
        rows=item.rows,
        first_seq=item.first_seq,
        last_seq=item.last_seq,
        checksum=checksum,
    )
