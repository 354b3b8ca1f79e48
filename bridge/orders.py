"""Orders on their way through the bridge: out of Redis, to the connector that holds the source, and its replies back.

Apart from the path of ticks: its own tasks, a frame each way per command, nothing is parsed beyond its head. A command
that was taken is answered here, whatever happens to the connection; only a bridge that dies answers nothing. What the
bridge says itself it seals with the key of the source, which follows from the token its connector has shown.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from core.errors.exceptions import Invalid, Unavailable
from core.messages import wire
from core.messages.order_seals import digest_of, reply_key, sealed_reply, token_hash
from core.messages.terminal_orders import (
    RelayedCommand,
    TerminalCommand,
    TerminalReply,
    command_of,
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
KEYS_MAX: Final = 4_096
"""Sources that were here, for which the bridge can still say that they are not."""


class OrderTaker(Protocol):
    """The connection of a connector that carries out orders."""

    def send_order(self, frame: bytes) -> bool:
        """Send one frame; False when the connection is over."""


@dataclass(frozen=True, slots=True)
class _Pending:
    """asked: the digest of the command."""

    reply_to: str
    asked: bytes
    since_s: float


@dataclass(slots=True)
class _Desk:
    """One source's connector. key: of its answers; pending: by command id."""

    tenant: str
    key: bytes
    taker: OrderTaker
    pending: dict[str, _Pending] = field(default_factory=dict)


class OrderRelay:
    """Passes commands and replies on, for every source whose connector takes orders."""

    def __init__(self, relay: TerminalRelay, clock: Clock) -> None:
        self._relay = relay
        self._clock = clock
        self._desks: dict[str, _Desk] = {}
        self._keys: dict[str, bytes] = {}
        self._answers: deque[tuple[str, bytes]] = deque(maxlen=ANSWERS_MAX)
        self._answered = asyncio.Event()
        self._attached = asyncio.Event()

    def attach(self, source: str, tenant: str, token: str, taker: OrderTaker) -> None:
        """From now on `taker`, which has shown `token`, carries out what is asked of `source`."""
        key = reply_key(token_hash(token))
        self._desks[source] = _Desk(tenant, key, taker)
        self._keys.pop(source, None)
        while len(self._keys) >= KEYS_MAX:
            del self._keys[next(iter(self._keys))]
        self._keys[source] = key
        self._attached.set()

    def detach(self, source: str, taker: OrderTaker) -> None:
        """Its connection is over: what it has not answered, nobody can say."""
        desk = self._desks.get(source)
        if desk is None or desk.taker is not taker:
            return
        del self._desks[source]
        for command_id, pending in desk.pending.items():
            reply = unknown(command_id, "CONNECTION_LOST", "the connector went away before it answered")
            body = sealed_reply(desk.key, pending.asked, encode_reply(reply))
            self._answer(pending.reply_to, body, "unanswered")

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
            for relayed in commands:
                try:
                    self._pass_on(relayed, command_of(relayed.sealed))
                except Invalid as e:
                    # Whoever wrote it will find it taken and no answer to it.
                    log.error("order_command.unreadable", error=str(e))

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

    def _pass_on(self, relayed: RelayedCommand, command: TerminalCommand) -> None:
        asked = digest_of(relayed.sealed)
        refusal = self._refusal(command)
        if refusal is None:
            desk = self._desks[command.source]
            desk.pending[command.id] = _Pending(relayed.reply_to, asked, self._clock.monotonic_s())
            if desk.taker.send_order(wire.encode_body(FrameType.ORDER, relayed.sealed)):
                metrics.BRIDGE_ORDER_COMMANDS.labels("passed_on").inc()
                return
            del desk.pending[command.id]
            refusal = refused(command.id, "TERMINAL_NOT_CONNECTED", "the connector has gone")
        key = self._keys.get(command.source)
        if key is None:
            # Never here, so nothing said of it would be believed.
            log.warning("order_command.nobodys", source=command.source)
            return
        self._answer(relayed.reply_to, sealed_reply(key, asked, encode_reply(refusal)), "refused")

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
