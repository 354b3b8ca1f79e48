"""The link to the bridge: dial, say HELLO, hand over to a session, come back after any failure."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Final

import structlog
from picows import WSError, ws_connect

from bridge.connector.bridge_socket import OnOrder, Refused
from bridge.connector.dialing import PAUSE_S_MAX, Backoff, address
from bridge.connector.session import Session
from bridge.connector.spool_thread import SpoolThread
from core.errors.exceptions import Corrupt, Defect, TickgateError, Unavailable
from core.messages import wire
from core.messages.wire import FrameType, Hello, NackCode, Notice, NoticeCode, Resume
from core.settings import ConnectorSettings

log = structlog.get_logger(__name__)

CONNECT_TIMEOUT_S: Final = 10.0
RESUME_TIMEOUT_S: Final = 60.0
"""The bridge may first have to wait until an older connection's last insert is settled."""
FRAME_BYTES_MAX: Final = wire.FRAME_BYTES_MAX + 1_024
NOTICES_MAX: Final = 1_000
"""The oldest are forgotten: they are for people, and all of them are in the log."""
HOPELESS: Final = frozenset({NackCode.UNAUTHORIZED, NackCode.VERSION_UNSUPPORTED, NackCode.MALFORMED})
"""Only a person helps, at either end; keep asking, but seldom."""
HOPELESS_PAUSE_S_MAX: Final = 30.0


class Link:
    """Keeps one session with the bridge going. Ticks wait in the spool meanwhile.

    on_resume: told each RESUME before anything is sent. on_diverged: start a new epoch in the spool. on_order: given
    each ORDER.
    """

    def __init__(
        self,
        settings: ConnectorSettings,
        spool: SpoolThread,
        on_resume: Callable[[Resume], Awaitable[None]],
        on_diverged: Callable[[], Awaitable[None]],
        on_order: OnOrder,
    ) -> None:
        self._settings = settings
        self._spool = spool
        self._on_resume = on_resume
        self._on_diverged = on_diverged
        self._on_order = on_order
        self._url, self._context = address(settings)
        self._notices: deque[Notice] = deque(maxlen=NOTICES_MAX)
        self._backoff = Backoff()
        self._agent = f"tickgate/{version('tickgate')}"
        self.session: Session | None = None
        self.state = "connecting"
        self.epoch = 0
        self.problem = ""

    def notice(self, code: NoticeCode, detail: str, symbol: str = "") -> None:
        """Tell the bridge, now or when it is there again, something an operator should find later."""
        self._notices.append(
            Notice(code=code, at_ms=time.time_ns() // 1_000_000, symbol=symbol, detail=detail[:500])
        )
        if self.session is not None:
            self.session.say()

    async def run(self) -> None:
        """Connect again and again until cancelled. Raises: Corrupt, when the spool is damaged."""
        while True:
            pause_s = await self._once()
            self.state = "connecting"
            await asyncio.sleep(pause_s)

    async def _once(self) -> float:
        """Run one connection to its end; return how long to wait before the next."""
        try:
            await self._connect()
        except Refused as e:
            self.problem = str(e)
            log.warning("link.refused", code=e.code, error=e.public)
            if e.nack.code is NackCode.SPOOL_DIVERGED:
                await self._diverged(e)
                return self._backoff.next_s()
            longest_s = HOPELESS_PAUSE_S_MAX if e.nack.code in HOPELESS else PAUSE_S_MAX
            return self._backoff.next_s(e.nack.retry_ms, longest_s)
        except (Corrupt, Defect):
            raise
        except (OSError, WSError, TimeoutError, TickgateError) as e:
            self.problem = str(e) or type(e).__name__
            log.warning("link.lost", error=self.problem)
        return self._backoff.next_s()

    async def _diverged(self, refusal: Refused) -> None:
        log.error("link.diverged", error=refusal.public)
        await self._on_diverged()
        self.notice(NoticeCode.EPOCH_STARTED, f"the bridge said: {refusal.public}")

    async def _connect(self) -> None:
        session = await self._dial()
        try:
            session.wire.send(wire.encode_json(FrameType.HELLO, self._hello()))
            resume = await self._resume(session)
            log.info("link.resumed", epoch=resume.epoch, next_seq=resume.next_seq)
            await self._spool.acknowledge(resume.next_seq - 1)
            await self._on_resume(resume)
            self._backoff.reset()
            self.session, self.epoch, self.state, self.problem = session, resume.epoch, "streaming", ""
            await session.run(resume)
        finally:
            self.session = None
            session.wire.disconnect(graceful=False)
            # Looked at here if nobody waited for it.
            if session.wire.ended.done():
                session.wire.ended.exception()
            else:
                session.wire.ended.cancel()

    async def _dial(self) -> Session:
        session = Session(self._spool, self._notices, self._on_order)
        await ws_connect(
            lambda: session.wire,
            self._url,
            websocket_handshake_timeout=CONNECT_TIMEOUT_S,
            max_frame_size=FRAME_BYTES_MAX,
            ssl_context=self._context,
        )
        if not session.wire.opened:
            # The library returns as if all were well when the peer hangs up before the handshake.
            raise Unavailable("the bridge hung up before the handshake", code="BRIDGE_UNAVAILABLE")
        return session

    def _hello(self) -> Hello:
        spool = self._spool.state
        return Hello(
            versions=[wire.VERSION],
            source=self._settings.source,
            install=spool.install,
            token=self._settings.token.reveal(),
            first_seq=spool.first_seq,
            next_seq=spool.next_seq,
            agent=self._agent,
            orders=wire.ORDERS_VERSION if self._settings.orders else 0,
        )

    async def _resume(self, session: Session) -> Resume:
        waiting = (session.wire.resumed, session.wire.ended)
        done, _ = await asyncio.wait(waiting, timeout=RESUME_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        if session.wire.ended in done:
            session.wire.ended.result()
        if session.wire.resumed not in done:
            raise Unavailable(f"the bridge gave no RESUME within {RESUME_TIMEOUT_S:g} s", code="NO_RESUME")
        resume = session.wire.resumed.result()
        if not self._spool.state.first_seq <= resume.next_seq <= self._spool.state.next_seq:
            raise Unavailable(
                f"RESUME from seq {resume.next_seq}, the spool holds {self._spool.state.first_seq} to"
                f" {self._spool.state.next_seq - 1}",
                code="BAD_RESUME",
            )
        return resume
