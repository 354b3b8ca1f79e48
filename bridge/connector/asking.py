"""Ask the terminal to change something: written down before, once, in time, and written down again after.

Before the terminal is asked what goes wrong raises. From then on nothing does: without an answer the outcome is
unknown. Only what the server has refused to look at, because requests come too often, is asked again, a little later:
that it was not carried out is the one thing known of it.
"""

import asyncio
import time
from typing import Final

import structlog

from bridge.connector.order_journal import OrderJournal
from bridge.connector.pacing import Pace
from bridge.connector.pipe import Call
from bridge.connector.terminal import TerminalLate, TerminalRefused
from bridge.connector.terminal_process import TerminalProcess
from bridge.connector.trade_view import Sent, Tags
from bridge.connector.trades import Request, SendResult
from core.errors.exceptions import TickgateError, Unavailable
from core.messages.terminal_orders import Outcome, TerminalCommand, TerminalReply, encode_reply, refused
from core.model.orders import OrderState
from core.model.venues import VenueReport
from core.trading.retcodes import RetcodeClass, meaning_of, meaning_of_error

log = structlog.get_logger(__name__)

TAGS_MAX: Final = 10_000
"""Orders whose tags are remembered beside their comments."""
FORGOTTEN_AT_ONCE: Final = 1_000
TRIES_MAX: Final = 8
"""Of one command that the server refuses to look at; its time is mostly over before."""


class Asking:
    """The one place that calls order_send. tags: whose orders are whose, kept up to date here."""

    def __init__(self, terminal: TerminalProcess, journal: OrderJournal, tags: Tags) -> None:
        self._terminal = terminal
        self._journal = journal
        self._tags = tags
        self._asked: dict[str, int] = {}
        self._pace = Pace(time.monotonic)

    async def recall(self) -> None:
        """Remember what was sent before this process began. Raises: Unavailable, Corrupt."""
        for sent in await self._journal.sent():
            self._note(sent)

    def asked_at_ms(self, tag: str) -> int | None:
        """Return when an order with this tag was asked for before, None where it was not."""
        return self._asked.get(tag)

    async def ask(
        self, command: TerminalCommand, request: Request, sent: Sent | None
    ) -> SendResult | TerminalReply:
        """Ask the terminal, once, or never again. Raises: Unavailable, while it surely has not been asked."""
        await self._journal.begin(command.id, now_ms(), sent)
        try:
            answer: SendResult = await self._paced(command, request)
        except TerminalLate as e:
            reply = refused(command.id, "TOO_LATE", e.public)
            await self._write_down(command.id, reply, 0)
            return reply
        except TickgateError as e:
            if sent is not None:
                self._note(sent)
            code = e.error_code if isinstance(e, TerminalRefused) else None
            meaning = None if code is None else meaning_of_error(code)
            report = VenueReport(
                state=OrderState.UNKNOWN,
                order=command.ticket,
                code=meaning.code if meaning else e.code,
                reason=meaning.text if meaning else e.public,
            )
            return await self.finished(command, report, None)
        if sent is not None:
            self._note(sent)
        return answer

    async def _paced(self, command: TerminalCommand, request: Request) -> SendResult:
        """Ask when it is time to, and again what the server did not look at, as long as the command is good."""
        answer: SendResult | None = None
        for _ in range(TRIES_MAX):
            wait_s = self._pace.wait_s()
            if answer is not None and now_ms() + wait_s * 1_000 >= command.valid_until_ms:
                return answer
            await asyncio.sleep(wait_s)
            try:
                again = await self._call_in_time(command, request)
            except TerminalLate:
                if answer is None:
                    raise
                return answer
            answer = again
            if meaning_of(answer.retcode).sort is not RetcodeClass.RATE:
                self._pace.taken()
                return answer
            self._pace.refused()
            log.warning("terminal.too_many_requests", command=command.id, pause_s=self._pace.pause_s)
        assert answer is not None, "it was asked at least once"
        return answer

    async def _call_in_time(self, command: TerminalCommand, request: Request) -> SendResult:
        call = Call(name="order_send", arguments=[request], valid_until_ms=command.valid_until_ms)
        (answer,) = await self._terminal.calls([call])
        if isinstance(answer, TerminalRefused | TerminalLate):
            raise answer
        result: SendResult = answer
        return result

    async def not_looked_at(self, command: TerminalCommand, answer: SendResult) -> TerminalReply:
        """Write down that the server refused to look at a change, and return that: it may be asked for again later."""
        meaning = meaning_of(answer.retcode)
        reply = refused(command.id, meaning.code, meaning.text)
        await self._write_down(command.id, reply, 0)
        return reply

    async def finished(
        self, command: TerminalCommand, report: VenueReport, sent: Sent | None
    ) -> TerminalReply:
        """Write down what came of a command, and return its reply."""
        ticket = int(report.order) if sent is not None and report.order else 0
        if sent is not None and ticket:
            self._note(
                Sent(
                    tag=sent.tag,
                    magic=sent.magic,
                    symbol=sent.symbol,
                    side=sent.side,
                    at_ms=sent.at_ms,
                    ticket=ticket,
                )
            )
        reply = done(command, report)
        await self._write_down(command.id, reply, ticket)
        return reply

    async def _write_down(self, command_id: str, reply: TerminalReply, ticket: int) -> None:
        try:
            await self._journal.finish(command_id, encode_reply(reply), ticket)
        except Unavailable as e:
            # Asked again it is answered "nobody can say", which is never wrong.
            log.error("order_journal.not_written", command=command_id, error=str(e))

    def _note(self, sent: Sent) -> None:
        self._tags.note(sent)
        self._asked[sent.tag] = sent.at_ms
        if len(self._asked) > TAGS_MAX:
            oldest = list(self._asked)[:FORGOTTEN_AT_ONCE]
            self._tags.forget(oldest)
            for tag in oldest:
                del self._asked[tag]


def done(command: TerminalCommand, report: VenueReport) -> TerminalReply:
    """Return the reply that a command was carried out with this result."""
    return TerminalReply(id=command.id, outcome=Outcome.DONE, report=report)


def now_ms() -> int:
    return time.time_ns() // 1_000_000
