"""Takes order commands from the bridge and gives each one reply: one at a time, apart from the reading of ticks.

A command's seal is looked at first, then whether it has been here, then its dates, and then it is carried out; each
step may end it. Which of the three a reply says,
that it surely was not done, that it was, or that nobody can say, is decided here and nowhere later.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from bridge.connector.order_journal import OrderJournal
from bridge.connector.trading import Trading
from core.errors.exceptions import Corrupt, Defect, Invalid, TickgateError, Unauthorized
from core.messages.order_seals import CommandKeys, digest_of, reply_key, sealed_reply, token_hash
from core.messages.terminal_orders import (
    CommandKind,
    Outcome,
    TerminalCommand,
    TerminalReply,
    command_of,
    encode_reply,
    refused,
    unknown,
)
from core.settings import ConnectorSettings
from core.telemetry import tracing

log = structlog.get_logger(__name__)

QUEUE_MAX: Final = 64
"""Commands that wait; more are refused. A terminal carries out a few a second."""
VALID_MS_MAX: Final = 60_000
"""No command is good for longer, however it is dated: so long is it remembered that one has been here."""
SEEN_MAX: Final = 10_000
"""Commands of that time; with more nothing is taken, or one of them could be given a second time."""

Answer = Callable[[bytes], None]


@dataclass(slots=True, kw_only=True)
class _Waiting:
    """asked: the digest of the sealed command, which the answer names; again: one of its id has been here."""

    command: TerminalCommand
    asked: bytes
    answer: Answer
    again: bool = False


class OrderDesk:
    """Carries out what the bridge asks and a trading worker has signed. Orders go before views: those may wait."""

    def __init__(
        self, trading: Trading, journal: OrderJournal, settings: ConnectorSettings, keys: CommandKeys
    ) -> None:
        self._trading = trading
        self._journal = journal
        self._settings = settings
        self._keys = keys
        self._reply_key = reply_key(token_hash(settings.token.reveal()))
        self._started_at_ms = _now_ms()
        self._seen: dict[str, int] = {}
        self._orders: deque[_Waiting] = deque()
        self._views: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()

    def take(self, body: bytes | memoryview, answer: Answer) -> None:
        """Take a sealed command; `answer` is given the sealed reply, soon or later."""
        sealed = bytes(body)
        try:
            command = command_of(sealed)
        except Invalid as e:
            # Without an id there is nobody to answer; the bridge passes on what it could read.
            log.error("order_command.unreadable", error=str(e))
            return
        waiting = _Waiting(command=command, asked=digest_of(sealed), answer=answer)
        refusal = self._turned_away(waiting, sealed)
        if refusal is not None:
            self._give(waiting, encode_reply(refusal))
            return
        (self._views if command.kind is CommandKind.VIEW else self._orders).append(waiting)
        self._arrived.set()

    def _turned_away(self, waiting: _Waiting, sealed: bytes) -> TerminalReply | None:
        """Say why a command is not even to wait, None where it is; from then on it has been here."""
        command_id = waiting.command.id
        if not self._settings.orders:
            return refused(command_id, "ORDERS_DISABLED", "this connector carries out no orders")
        try:
            self._keys.opened(sealed)
        except Unauthorized as e:
            log.error("order_command.not_signed", command=command_id, source=waiting.command.source)
            return refused(command_id, e.code, e.public)
        now_ms = _now_ms()
        while self._seen and next(iter(self._seen.values())) < now_ms:
            del self._seen[next(iter(self._seen))]
        waiting.again = command_id in self._seen
        if len(self._seen) >= SEEN_MAX or len(self._orders) + len(self._views) >= QUEUE_MAX:
            self._remember(command_id, now_ms)
            return refused(command_id, "TERMINAL_BUSY", "the connector has too much to do")
        self._remember(command_id, now_ms)
        if self._closing:
            return refused(command_id, "SHUTTING_DOWN", "the connector stops")
        return None

    def _remember(self, command_id: str, now_ms: int) -> None:
        self._seen.setdefault(command_id, now_ms + VALID_MS_MAX)

    async def run(self) -> None:
        """Work until cancelled. Raises: Corrupt, Defect."""
        await self._trading.recall()
        while True:
            if not (self._orders or self._views):
                self._arrived.clear()
                await self._arrived.wait()
            one = (self._orders or self._views).popleft()
            self._idle.clear()
            try:
                self._give(one, await self._reply(one.command, again=one.again))
            finally:
                self._idle.set()

    async def finish(self) -> None:
        """Return when what is being carried out is done; what waits is refused, as is what still comes."""
        self._closing = True
        for waiting in (self._orders, self._views):
            while waiting:
                one = waiting.popleft()
                self._give(one, encode_reply(refused(one.command.id, "SHUTTING_DOWN", "the connector stops")))
        await self._idle.wait()

    def _give(self, one: _Waiting, body: bytes) -> None:
        one.answer(sealed_reply(self._reply_key, one.asked, body))

    async def _reply(self, command: TerminalCommand, *, again: bool) -> bytes:
        tracing.start(command.traceparent)
        started_s = time.monotonic()
        try:
            known = await self._known(command)
            if known is not None:
                return known
            reply = self._refusal(command, again=again) or await self._trading.carry_out(command)
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

    def _refusal(self, command: TerminalCommand, *, again: bool) -> TerminalReply | None:
        if again:
            # It was answered, and its answer believed: given once more it must not do something else.
            log.error("order_command.replayed", command=command.id)
            return unknown(command.id, "ASKED_ALREADY", "this command has been here before")
        if command.source != self._settings.source:
            return refused(command.id, "WRONG_SOURCE", f"this is {self._settings.source}")
        if command.made_at_ms < self._started_at_ms:
            # Perhaps it was here before this process began, which remembers only what the terminal was asked.
            return refused(command.id, "BEFORE_START", "it was made before the connector began")
        now_ms = _now_ms()
        if command.valid_until_ms <= now_ms:
            return refused(command.id, "TOO_LATE", "its time was over before it reached the connector")
        if command.valid_until_ms > now_ms + VALID_MS_MAX:
            return refused(command.id, "CLOCKS_DIFFER", "it is good for longer than any command is")
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


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
