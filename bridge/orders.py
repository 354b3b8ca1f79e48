"""Orders on their way through the bridge: out of Redis, to the connector that holds the source, and its replies back.

Apart from the path of ticks: its own tasks, a frame each way per command, nothing is parsed beyond its head. A command
that was taken is answered here, whatever happens to the connection; only a bridge that dies answers nothing.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec
import structlog

from core.errors.exceptions import Invalid, Unavailable
from core.messages import wire
from core.messages.terminal_orders import (
    TerminalCommand,
    TerminalReply,
    encode_command,
    encode_reply,
    refused,
    reply_head,
    unknown,
)
from core.messages.wire import FrameType
from core.ports.clocks import Clock
from core.ports.terminals import TerminalRelay
from core.telemetry import metrics

log = structlog.get_logger(__name__)

ANNOUNCE_INTERVAL_S: Final = 1.0
RELAY_PAUSE_S: Final = 0.2
PENDING_MAX: Final = 128
"""Commands one connector has not answered; with more it is busy."""
FORGOTTEN_AFTER_S: Final = 120.0
"""Nobody waits for a reply this long."""
ANSWERS_MAX: Final = 4_096
"""Replies that wait for Redis; then the oldest are for nobody any more."""


class OrderTaker(Protocol):
    """The connection of a connector that carries out orders."""

    def send_order(self, frame: bytes) -> bool:
        """Send one frame; False when the connection is over."""


@dataclass(frozen=True, slots=True)
class _Pending:
    reply_to: str
    since_s: float


@dataclass(slots=True)
class _Desk:
    """One source's connector. pending: by command id."""

    tenant: str
    taker: OrderTaker
    pending: dict[str, _Pending] = field(default_factory=dict)


class OrderRelay:
    """Passes commands and replies on, for every source whose connector takes orders."""

    def __init__(self, relay: TerminalRelay, clock: Clock) -> None:
        self._relay = relay
        self._clock = clock
        self._desks: dict[str, _Desk] = {}
        self._answers: deque[tuple[str, bytes]] = deque(maxlen=ANSWERS_MAX)
        self._answered = asyncio.Event()
        self._attached = asyncio.Event()

    def attach(self, source: str, tenant: str, taker: OrderTaker) -> None:
        """From now on `taker` carries out what is asked of `source`."""
        self._desks[source] = _Desk(tenant, taker)
        self._attached.set()

    def detach(self, source: str, taker: OrderTaker) -> None:
        """Its connection is over: what it has not answered, nobody can say."""
        desk = self._desks.get(source)
        if desk is None or desk.taker is not taker:
            return
        del self._desks[source]
        for command_id, pending in desk.pending.items():
            reply = unknown(command_id, "CONNECTION_LOST", "the connector went away before it answered")
            self._answer(pending.reply_to, encode_reply(reply), "unanswered")

    def take_reply(self, source: str, taker: OrderTaker, body: memoryview) -> bool:
        """Pass a connector's reply on; False where nobody has asked it that. Raises: Invalid."""
        command_id = reply_head(body).id
        desk = self._desks.get(source)
        if desk is None or desk.taker is not taker:
            return False
        pending = desk.pending.pop(command_id, None)
        if pending is None:
            return False
        self._answer(pending.reply_to, bytes(body), "answered")
        return True

    async def run(self) -> None:
        """Pass on until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._announce())
            tasks.create_task(self._take())
            tasks.create_task(self._give())

    async def _announce(self) -> None:
        """Say again and again which sources are here; at once when there is a new one."""
        while True:
            self._attached.clear()
            self._forget()
            try:
                await self._relay.announce(list(self._desks))
            except Unavailable as e:
                log.warning("orders.not_announced", error=str(e))
            try:
                async with asyncio.timeout(ANNOUNCE_INTERVAL_S):
                    await self._attached.wait()
            except TimeoutError:
                continue

    async def _take(self) -> None:
        while True:
            if not self._desks:
                await self._attached.wait()
                continue
            try:
                commands = await self._relay.take()
            except Unavailable as e:
                log.warning("orders.not_taken", error=str(e))
                await asyncio.sleep(RELAY_PAUSE_S)
                continue
            for command in commands:
                self._pass_on(command)

    async def _give(self) -> None:
        while True:
            while self._answers:
                reply_to, body = self._answers.popleft()
                try:
                    await self._relay.answer(reply_to, body)
                except Unavailable as e:
                    # Given twice it is dropped by who asked; not at all it is an unknown outcome.
                    log.warning("orders.not_answered", error=str(e))
                    self._answers.appendleft((reply_to, body))
                    await asyncio.sleep(RELAY_PAUSE_S)
            self._answered.clear()
            await self._answered.wait()

    def _pass_on(self, command: TerminalCommand) -> None:
        refusal = self._refusal(command)
        if refusal is None:
            desk = self._desks[command.source]
            try:
                body = encode_command(msgspec.structs.replace(command, reply_to=""))
            except Invalid as e:
                # Written out in full it is longer than it came.
                self._answer(command.reply_to, encode_reply(refused(command.id, e.code, e.public)), "refused")
                return
            desk.pending[command.id] = _Pending(command.reply_to, self._clock.monotonic_s())
            if desk.taker.send_order(wire.encode_body(FrameType.ORDER, body)):
                metrics.BRIDGE_ORDER_COMMANDS.labels("passed_on").inc()
                return
            del desk.pending[command.id]
            refusal = refused(command.id, "TERMINAL_NOT_CONNECTED", "the connector has gone")
        self._answer(command.reply_to, encode_reply(refusal), "refused")

    def _refusal(self, command: TerminalCommand) -> TerminalReply | None:
        if command.valid_until_ms <= self._clock.now_ms():
            return refused(command.id, "TOO_LATE", "its time was over before it reached the bridge")
        desk = self._desks.get(command.source)
        if desk is None or desk.tenant != command.tenant:
            return refused(command.id, "TERMINAL_NOT_CONNECTED", f"no connector of {command.source} is here")
        if command.id in desk.pending:
            return unknown(
                command.id, "ASKED_ALREADY", "the connector has been asked this and not answered yet"
            )
        if len(desk.pending) >= PENDING_MAX:
            return refused(command.id, "TERMINAL_BUSY", "the connector has too much to do")
        return None

    def _answer(self, reply_to: str, body: bytes, how: str) -> None:
        metrics.BRIDGE_ORDER_COMMANDS.labels(how).inc()
        self._answers.append((reply_to, body))
        self._answered.set()

    def _forget(self) -> None:
        """Drop what nobody waits for any more."""
        oldest_s = self._clock.monotonic_s() - FORGOTTEN_AFTER_S
        for desk in self._desks.values():
            old = [name for name, pending in desk.pending.items() if pending.since_s < oldest_s]
            for name in old:
                del desk.pending[name]
