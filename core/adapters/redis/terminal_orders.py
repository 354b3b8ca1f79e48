"""The venue `mt5`: orders go by Redis to the bridge that holds the account's source, and on to its terminal.

Asked is who took the command out of Redis. As long as it still lies there it is taken back, and surely nobody was
asked; once it is gone only a reply tells what became of it, and without one nobody can say.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog

from core.adapters.redis.link import Link, running
from core.adapters.redis.terminal_relay import KEPT_MS, POP_BLOCKS_S, TROUBLE, ask, holder_key, new_inbox
from core.errors.exceptions import Invalid, Unavailable, UnknownOutcome
from core.messages.terminal_orders import (
    CommandKind,
    Outcome,
    TerminalCommand,
    TerminalReply,
    decode_reply,
    encode_command,
)
from core.model.orders import Order
from core.model.venues import OrderChange, TradingAccount, VenueReport, VenueView
from core.settings import Settings
from core.telemetry import tracing

log = structlog.get_logger(__name__)

TAKE_TIMEOUT_S: Final = 2.0
"""A bridge takes a command at once or is not there."""
ANSWER_TIMEOUT_S: Final = 8.0
"""From asking on. A terminal that answers later is reconciled with."""
VALID_S: Final = 5.0
"""Then nobody begins to carry it out any more, however late it arrives."""
WAITING_MAX: Final = 256
"""Commands that may lie before one bridge; more than a terminal could carry out while they are valid."""
FIRST_LOOK_MS: Final = 7 * 86_400_000
REPLIES_AT_ONCE_MAX: Final = 64
RETRY_PAUSE_S: Final = 0.2


class TerminalOrders:
    """The `Venue` port, by way of bridge and connector. pops: a link of its own, waiting for replies blocks it."""

    def __init__(self, link: Link, pops: Link) -> None:
        self._link = link
        self._pops = pops
        self._inbox = new_inbox("worker")
        self._waiting: dict[str, asyncio.Future[TerminalReply]] = {}

    async def send(self, account: TradingAccount, order: Order) -> VenueReport:
        return _report(await self._reply(self._command(account, CommandKind.SEND, order=order)))

    async def cancel(self, account: TradingAccount, order: str) -> VenueReport:
        return _report(await self._reply(self._command(account, CommandKind.CANCEL, ticket=order)))

    async def modify(self, account: TradingAccount, order: str, change: OrderChange) -> VenueReport:
        command = self._command(account, CommandKind.MODIFY, ticket=order, change=change)
        return _report(await self._reply(command))

    async def view(self, account: TradingAccount, since_ms: int) -> VenueView:
        if not since_ms:
            # Never seen before: of what is older no order can be ours, and a terminal may hold years of it.
            since_ms = time.time_ns() // 1_000_000 - FIRST_LOOK_MS
        command = self._command(account, CommandKind.VIEW, since_ms=since_ms)
        try:
            reply = await self._reply(command)
        except UnknownOutcome as e:
            # Nothing was to be changed.
            raise Unavailable(e.public, code=e.code, detail=e.detail) from e
        if reply.view is None:
            raise Unavailable("the terminal showed nothing", code="NO_VIEW")
        return reply.view

    def _command(self, account: TradingAccount, kind: CommandKind, **fields: Any) -> TerminalCommand:
        return TerminalCommand(
            id=uuid.uuid4().hex,
            kind=kind,
            tenant=account.tenant,
            source=account.source,
            valid_until_ms=int((time.time() + VALID_S) * 1_000),
            traceparent=tracing.current_traceparent(),
            reply_to=self._inbox,
            **fields,
        )

    async def _reply(self, command: TerminalCommand) -> TerminalReply:
        """Ask, and return a reply that is DONE. Raises: Unavailable, UnknownOutcome."""
        inbox = await self._inbox_of(command.source)
        body = encode_command(command)
        future: asyncio.Future[TerminalReply] = asyncio.get_running_loop().create_future()
        self._waiting[command.id] = future
        try:
            reply = await self._exchange(inbox, body, future)
        finally:
            del self._waiting[command.id]
        if reply.outcome is Outcome.REFUSED:
            raise Unavailable(reply.reason or "the terminal was not asked", code=reply.code or "NOT_ASKED")
        if reply.outcome is Outcome.UNKNOWN:
            raise UnknownOutcome(reply.reason or "nobody can say", code=reply.code or "UNKNOWN_OUTCOME")
        return reply

    async def _inbox_of(self, source: str) -> bytes:
        (inbox,) = await ask(self._link, ("GET", holder_key(source)))
        if inbox is None:
            raise Unavailable(f"no bridge holds the terminal of {source}", code="TERMINAL_NOT_CONNECTED")
        return bytes(inbox)

    async def _exchange(
        self, inbox: bytes, body: bytes, future: asyncio.Future[TerminalReply]
    ) -> TerminalReply:
        loop = asyncio.get_running_loop()
        asked_at_s = loop.time()
        try:
            if not await self._put(inbox, body):
                raise Unavailable("too many orders wait for this terminal", code="TERMINAL_BUSY")
            done, _ = await asyncio.wait({future}, timeout=TAKE_TIMEOUT_S)
            if not done and await self._taken_back(inbox, body):
                raise Unavailable("nobody took the order to its terminal", code="TERMINAL_NOT_CONNECTED")
            left_s = ANSWER_TIMEOUT_S - (loop.time() - asked_at_s)
            done, _ = await asyncio.wait({future}, timeout=max(0.0, left_s))
        except asyncio.CancelledError:
            # Nobody waits any more: what has not been taken shall not be.
            await asyncio.shield(self._taken_back(inbox, body))
            raise
        if not done:
            raise UnknownOutcome(
                f"the terminal has not answered within {ANSWER_TIMEOUT_S:g} s", code="NO_REPLY"
            )
        return future.result()

    async def _put(self, inbox: bytes, body: bytes) -> bool:
        """Put the command there; False where too many wait. Raises: UnknownOutcome, when nobody can say whether."""
        try:
            connection = self._link.get()
        except Unavailable as e:
            raise Unavailable("orders cannot be passed on", code="RELAY_UNAVAILABLE") from e
        try:
            waiting, _ = await connection.ask(("RPUSH", inbox, body), ("PEXPIRE", inbox, KEPT_MS))
        except TROUBLE as e:
            if await self._taken_back(inbox, body):
                raise Unavailable("orders cannot be passed on", code="RELAY_UNAVAILABLE") from e
            raise UnknownOutcome("the order may have been passed on", code="RELAY_LOST", detail=str(e)) from e
        return waiting <= WAITING_MAX or not await self._taken_back(inbox, body)

    async def _taken_back(self, inbox: bytes, body: bytes) -> bool:
        """Take the command out again; False where it is not there any more, or nobody can say."""
        try:
            async with asyncio.timeout(TAKE_TIMEOUT_S):
                connection = await self._link.wait()
                (removed,) = await connection.ask(("LREM", inbox, 1, body))
        except TROUBLE:
            return False
        return bool(removed)

    async def listen(self) -> None:
        """Hand replies to who waits for them, until cancelled."""
        pop = ("BLMPOP", POP_BLOCKS_S, 1, self._inbox, "LEFT", "COUNT", REPLIES_AT_ONCE_MAX)
        while True:
            connection = await self._pops.wait()
            try:
                (popped,) = await connection.ask(pop)
            except TROUBLE as e:
                log.warning("order_replies.lost", error=str(e))
                await asyncio.sleep(RETRY_PAUSE_S)
                continue
            for body in popped[1] if popped else ():
                self._hand_over(body)

    def _hand_over(self, body: bytes) -> None:
        try:
            reply = decode_reply(body)
        except Invalid as e:
            log.error("order_reply.unreadable", error=str(e))
            return
        future = self._waiting.get(reply.id)
        if future is None or future.done():
            log.warning("order_reply.late", outcome=reply.outcome.value, code=reply.code)
            return
        future.set_result(reply)


def _report(reply: TerminalReply) -> VenueReport:
    if reply.report is None:
        raise UnknownOutcome("the terminal's answer says nothing", code="NO_REPORT")
    return reply.report


@asynccontextmanager
async def open_terminal_orders(
    settings: Settings, _services: Mapping[str, Any]
) -> AsyncIterator[TerminalOrders]:
    """Open it. An absent Redis is no reason not to start: everything raises Unavailable until it is there."""
    link = Link(settings.redis, "terminal orders")
    pops = Link(settings.redis, "terminal orders pops", blocking_s=POP_BLOCKS_S)
    async with running(link, pops):
        venue = TerminalOrders(link, pops)
        listening = asyncio.create_task(venue.listen())
        try:
            yield venue
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
