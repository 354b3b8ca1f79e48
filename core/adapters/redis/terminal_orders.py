"""The venue `mt5`: orders go by Redis to the bridge that holds the account's source, and on to its terminal.

Asked is who took the command out of Redis. As long as it still lies there it is taken back, and surely nobody was
asked; once it is gone only a reply tells what became of it, and without one nobody can say. Commands are signed here,
by who has judged them, and a reply that its source has not sealed is none: Redis only carries.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from core.adapters.redis.link import Link, running
from core.adapters.redis.terminal_relay import KEPT_MS, POP_BLOCKS_S, TROUBLE, ask, holder_key, new_inbox
from core.errors.exceptions import Invalid, Misconfigured, NotFound, Unauthorized, Unavailable, UnknownOutcome
from core.messages.order_seals import CommandSigner, digest_of, opened_reply, reply_key
from core.messages.terminal_orders import (
    CommandKind,
    Outcome,
    RelayedCommand,
    TerminalCommand,
    TerminalReply,
    decode_reply,
    encode_command,
    encode_relayed,
    reply_head,
)
from core.model.orders import Order
from core.model.venues import BEGUN_WITHIN_S, OrderChange, TradingAccount, VenueReport, VenueView
from core.ports.terminals import SourceSecrets
from core.settings import Settings
from core.telemetry import metrics, tracing

log = structlog.get_logger(__name__)

TAKE_TIMEOUT_S: Final = 2.0
"""A bridge takes a command at once or is not there."""
ANSWER_TIMEOUT_S: Final = 8.0
"""From asking on. A terminal that answers later is reconciled with."""
VALID_S: Final = BEGUN_WITHIN_S
"""Then nobody begins to carry it out any more, however late it arrives."""
WAITING_MAX: Final = 256
"""Commands that may lie before one bridge; more than a terminal could carry out while they are valid."""
FIRST_LOOK_MS: Final = 7 * 86_400_000
REPLIES_AT_ONCE_MAX: Final = 64
RETRY_PAUSE_S: Final = 0.2
KEY_KEPT_S: Final = 5.0
"""How long the key of a source's answers is not asked for again: as long as a replaced token may still be shown."""
KEYS_MAX: Final = 4_096
WRONG_ACCOUNT: Final = "WRONG_ACCOUNT"
"""What a connector refuses with whose terminal is signed in to another account."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """key: of the source's answers; digest: of the command, which the answer must be to."""

    key: bytes
    digest: bytes
    future: asyncio.Future[TerminalReply]


class TerminalOrders:
    """The `Venue` port, by way of bridge and connector.

    pops: a link of its own, waiting for replies blocks it. signer: None where this process has no key; then nothing is
    asked.
    """

    def __init__(self, link: Link, pops: Link, secrets: SourceSecrets, signer: CommandSigner | None) -> None:
        self._link = link
        self._pops = pops
        self._secrets = secrets
        self._signer = signer
        self._inbox = new_inbox("worker")
        self._waiting: dict[str, _Asked] = {}
        self._keys: dict[str, tuple[bytes, float]] = {}

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
        now_s = time.time()
        return TerminalCommand(
            id=uuid.uuid4().hex,
            kind=kind,
            tenant=account.tenant,
            source=account.source,
            made_at_ms=int(now_s * 1_000),
            valid_until_ms=int((now_s + VALID_S) * 1_000),
            login=account.login,
            server=account.server,
            traceparent=tracing.current_traceparent(),
            **fields,
        )

    async def _reply(self, command: TerminalCommand) -> TerminalReply:
        """Ask, and return a reply that is DONE. Raises: Unavailable, UnknownOutcome."""
        if self._signer is None:
            raise Unavailable("this worker has no key to sign orders with", code="ORDER_KEY_MISSING")
        inbox = await self._inbox_of(command.source)
        key = await self._reply_key(command.source)
        sealed = self._signer.sealed(encode_command(command))
        body = encode_relayed(RelayedCommand(reply_to=self._inbox, sealed=sealed))
        future: asyncio.Future[TerminalReply] = asyncio.get_running_loop().create_future()
        self._waiting[command.id] = _Asked(key=key, digest=digest_of(sealed), future=future)
        try:
            reply = await self._exchange(inbox, body, future)
        finally:
            del self._waiting[command.id]
        if reply.outcome is Outcome.REFUSED:
            if reply.code == WRONG_ACCOUNT:
                metrics.TERMINAL_REFUSALS.labels("wrong_account").inc()
                log.error("terminal.wrong_account", source=command.source, reason=reply.reason)
            raise Unavailable(reply.reason or "the terminal was not asked", code=reply.code or "NOT_ASKED")
        if reply.outcome is Outcome.UNKNOWN:
            raise UnknownOutcome(reply.reason or "nobody can say", code=reply.code or "UNKNOWN_OUTCOME")
        return reply

    async def _reply_key(self, source: str) -> bytes:
        """Return the key that seals the source's answers. Raises: Unavailable."""
        now_s = time.monotonic()
        kept, read_at_s = self._keys.get(source, (b"", float("-inf")))
        if now_s - read_at_s < KEY_KEPT_S:
            return kept
        try:
            key = reply_key(await self._secrets.token_hash(source))
        except NotFound as e:
            raise Unavailable(f"there is no source {source} any more", code="TERMINAL_NOT_CONNECTED") from e
        if len(self._keys) >= KEYS_MAX:
            self._keys.clear()
        self._keys[source] = (key, now_s)
        return key

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

    def _hand_over(self, sealed: bytes) -> None:
        try:
            command_id = reply_head(sealed).id
            asked = self._waiting.get(command_id)
            if asked is None or asked.future.done():
                log.warning("order_reply.late", command=command_id)
                return
            reply = decode_reply(opened_reply(asked.key, asked.digest, sealed))
        except Invalid as e:
            log.error("order_reply.unreadable", error=str(e))
        except Unauthorized as e:
            # Made by somebody else, or with a token that was replaced a moment ago: the true one may still come.
            self._keys.clear()
            metrics.TERMINAL_REFUSALS.labels("reply_not_sealed").inc()
            log.error("order_reply.not_sealed", command=command_id, error=str(e))
        else:
            asked.future.set_result(reply)


def _report(reply: TerminalReply) -> VenueReport:
    if reply.report is None:
        raise UnknownOutcome("the terminal's answer says nothing", code="NO_REPORT")
    return reply.report


def _signer(path: Path) -> CommandSigner:
    """Raises: Misconfigured."""
    try:
        return CommandSigner(msgspec.json.decode(path.read_bytes())["keys"][0])
    except (OSError, msgspec.DecodeError, KeyError, IndexError, TypeError, ValueError) as e:
        raise Misconfigured(f"{path} holds no key to sign orders with", code="BAD_SIGNING_KEY") from e


@asynccontextmanager
async def open_terminal_orders(
    settings: Settings, services: Mapping[str, Any]
) -> AsyncIterator[TerminalOrders]:
    """Open it. An absent Redis is no reason not to start: everything raises Unavailable until it is there."""
    signer = _signer(Path(settings.trading.key_file)) if settings.trading.key_file else None
    link = Link(settings.redis, "terminal orders")
    pops = Link(settings.redis, "terminal orders pops", blocking_s=POP_BLOCKS_S)
    async with running(link, pops):
        venue = TerminalOrders(link, pops, services["sources"], signer)
        listening = asyncio.create_task(venue.listen())
        try:
            yield venue
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
