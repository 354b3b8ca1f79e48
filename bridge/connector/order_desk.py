"""Takes order commands from the bridge and gives each one reply: one at a time, apart from the reading of ticks.

A command is looked up first, then dated, then carried out; each step may end it. Which of the three a reply says,
that it surely was not done, that it was, or that nobody can say, is decided here and nowhere later.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import structlog

from bridge.connector.order_journal import OrderJournal
from bridge.connector.trading import Trading
from core.errors.exceptions import Corrupt, Defect, Invalid, TickgateError
from core.messages.terminal_orders import (
    CommandKind,
    Outcome,
    TerminalCommand,
    TerminalReply,
    decode_command,
    encode_reply,
    refused,
    unknown,
)
from core.settings import ConnectorSettings
from core.telemetry import tracing

log = structlog.get_logger(__name__)

QUEUE_MAX: Final = 64
"""Commands that wait; more are refused. A terminal carries out a few a second."""

Answer = Callable[[bytes], None]


class OrderDesk:
    """Carries out what the bridge asks. Orders go before views: those may wait."""

    def __init__(self, trading: Trading, journal: OrderJournal, settings: ConnectorSettings) -> None:
        self._trading = trading
        self._journal = journal
        self._settings = settings
        self._orders: deque[tuple[TerminalCommand, Answer]] = deque()
        self._views: deque[tuple[TerminalCommand, Answer]] = deque()
        self._arrived = asyncio.Event()
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()

    def take(self, body: bytes | memoryview, answer: Answer) -> None:
        """Take a command; `answer` is given the encoded reply, soon or later."""
        try:
            command = decode_command(body)
        except Invalid as e:
            # Without an id there is nobody to answer; the bridge passes on what it could read.
            log.error("order_command.unreadable", error=str(e))
            return
        if not self._settings.orders:
            answer(
                encode_reply(refused(command.id, "ORDERS_DISABLED", "this connector carries out no orders"))
            )
            return
        if self._closing:
            answer(encode_reply(refused(command.id, "SHUTTING_DOWN", "the connector stops")))
            return
        if len(self._orders) + len(self._views) >= QUEUE_MAX:
            answer(encode_reply(refused(command.id, "TERMINAL_BUSY", "the connector has too much to do")))
            return
        (self._views if command.kind is CommandKind.VIEW else self._orders).append((command, answer))
        self._arrived.set()

    async def run(self) -> None:
        """Work until cancelled. Raises: Corrupt, Defect."""
        await self._trading.recall()
        while True:
            if not (self._orders or self._views):
                self._arrived.clear()
                await self._arrived.wait()
            command, answer = (self._orders or self._views).popleft()
            self._idle.clear()
            try:
                answer(await self._reply(command))
            finally:
                self._idle.set()

    async def finish(self) -> None:
        """Return when what is being carried out is done; what waits is refused, as is what still comes."""
        self._closing = True
        for waiting in (self._orders, self._views):
            while waiting:
                command, answer = waiting.popleft()
                answer(encode_reply(refused(command.id, "SHUTTING_DOWN", "the connector stops")))
        await self._idle.wait()

    async def _reply(self, command: TerminalCommand) -> bytes:
        tracing.start(command.traceparent)
        started_s = time.monotonic()
        try:
            known = await self._known(command)
            if known is not None:
                return known
            reply = self._refusal(command) or await self._trading.carry_out(command)
        except (Corrupt, Defect):
            raise
        except TickgateError as e:
            # Raised only before the terminal is asked to change anything.
            reply = refused(command.id, e.code, e.public)
        except Exception:
            # The door of this command: one that breaks something here must not end the reading of ticks.
            log.exception("order_command.defect", command=command.id)
            reply = unknown(command.id, "DEFECT", "something in the connector is broken")
        self._log(command, reply, started_s)
        return self._encoded(reply)

    async def _known(self, command: TerminalCommand) -> bytes | None:
        """Return the reply to a command that has been here before."""
        if command.kind is CommandKind.VIEW:
            return None
        found = await self._journal.find(command.id)
        if found is None:
            return None
        log.warning("order_command.again", command=command.id, answered=found.reply is not None)
        if found.reply is not None:
            return found.reply
        return encode_reply(
            unknown(command.id, "ASKED_ALREADY", "it was being carried out when the connector ended")
        )

    def _refusal(self, command: TerminalCommand) -> TerminalReply | None:
        if command.source != self._settings.source:
            return refused(command.id, "WRONG_SOURCE", f"this is {self._settings.source}")
        if command.valid_until_ms <= time.time_ns() // 1_000_000:
            return refused(command.id, "TOO_LATE", "its time was over before it reached the connector")
        return None

    def _encoded(self, reply: TerminalReply) -> bytes:
        try:
            return encode_reply(reply)
        except Invalid:
            if reply.view is None:
                raise
            return encode_reply(
                refused(reply.id, "VIEW_TOO_LARGE", "more has happened than fits in one answer")
            )

    def _log(self, command: TerminalCommand, reply: TerminalReply, started_s: float) -> None:
        if command.kind is CommandKind.VIEW and reply.outcome is Outcome.DONE:
            return
        report = reply.report
        log.info(
            "order_command.done",
            kind=command.kind.value,
            tag=command.order.id if command.order else "",
            ticket=command.ticket or (report.order if report else ""),
            outcome=reply.outcome.value,
            state=report.state.value if report else "",
            code=reply.code or (report.code if report else ""),
            ms=round((time.monotonic() - started_s) * 1_000, 1),
        )
