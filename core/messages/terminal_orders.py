"""What is asked of the terminal behind a source, and what comes back: the same words in Redis and on the wire.

A command is executed at most once: it has an id, it is taken out of Redis by whoever passes it on, and from
`valid_until_ms` on nobody acts on it any more. It travels sealed (`core.messages.order_seals`), as its answer does.
"""

from enum import StrEnum
from typing import Annotated, Final, TypeVar

import msgspec

from core.errors.exceptions import Invalid
from core.messages.order_seals import MAC_BYTES, SIGNATURE_BYTES
from core.model.orders import Order
from core.model.venues import OrderChange, VenueReport, VenueView

COMMAND_BYTES_MAX: Final = 16 * 1024
REPLY_BYTES_MAX: Final = 4 * 1024**2
REASON_CHARS_MAX: Final = 500

CommandId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Body = TypeVar("Body")
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


class CommandKind(StrEnum):
    SEND = "send"
    CANCEL = "cancel"
    MODIFY = "modify"
    VIEW = "view"


class Outcome(StrEnum):
    """DONE: it was asked, and this is the answer. REFUSED: it surely was not. UNKNOWN: nobody can say."""

    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class TerminalCommand(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """order: of SEND; ticket: of CANCEL and MODIFY; change: of MODIFY; since_ms: of VIEW, UTC.

    made_at_ms, valid_until_ms: UTC epoch ms. login, server: of the account that is meant; a terminal that is signed in
    to another one does nothing. 0 and "" are any.
    """

    id: CommandId
    kind: CommandKind
    tenant: Name
    source: Name
    made_at_ms: int
    valid_until_ms: int
    login: int = 0
    server: str = ""
    order: Order | None = None
    ticket: str = ""
    change: OrderChange | None = None
    since_ms: int = 0
    traceparent: str = ""


class RelayedCommand(msgspec.Struct, frozen=True, kw_only=True):
    """A command as it lies in Redis. reply_to: where there the answer is waited for; the bridge keeps it to itself."""

    reply_to: str
    sealed: bytes


class TerminalReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """report: of an order that was sent, cancelled or changed; view: of VIEW; code, reason: of what is not DONE."""

    id: CommandId
    outcome: Outcome
    report: VenueReport | None = None
    view: VenueView | None = None
    code: str = ""
    reason: str = ""


class ReplyHead(msgspec.Struct, frozen=True):
    """All the bridge reads of a reply; the rest is for who asked."""

    id: CommandId


_encoder = msgspec.json.Encoder()
_relayed = msgspec.msgpack.Decoder(RelayedCommand)
_commands = msgspec.json.Decoder(TerminalCommand)
_replies = msgspec.json.Decoder(TerminalReply)
_heads = msgspec.json.Decoder(ReplyHead)


def encode_command(command: TerminalCommand) -> bytes:
    """Raises: Invalid, when it is larger than a command may be."""
    body = _encoder.encode(command)
    if len(body) > COMMAND_BYTES_MAX:
        raise Invalid(f"an order command of {len(body)} bytes", code="TOO_LARGE")
    return body


def decode_command(body: bytes | memoryview) -> TerminalCommand:
    """Raises: Invalid."""
    return _decoded(_commands, body, COMMAND_BYTES_MAX)


def encode_relayed(relayed: RelayedCommand) -> bytes:
    return msgspec.msgpack.encode(relayed)


def decode_relayed(body: bytes) -> RelayedCommand:
    """Raises: Invalid."""
    if len(body) > 2 * COMMAND_BYTES_MAX:
        raise Invalid(f"an order command of {len(body)} bytes", code="TOO_LARGE")
    try:
        return _relayed.decode(body)
    except msgspec.DecodeError as e:
        raise Invalid(f"no message about an order: {e}", code="MALFORMED") from e


def command_of(sealed: bytes) -> TerminalCommand:
    """Return what a sealed command says, whoever has sealed it. Raises: Invalid."""
    return decode_command(memoryview(sealed)[SIGNATURE_BYTES:])


def encode_reply(reply: TerminalReply) -> bytes:
    """Raises: Invalid, when it is larger than a reply may be."""
    body = _encoder.encode(reply)
    if len(body) > REPLY_BYTES_MAX:
        raise Invalid(f"a reply of {len(body)} bytes", code="TOO_LARGE")
    return body


def decode_reply(body: bytes | memoryview) -> TerminalReply:
    """Raises: Invalid."""
    return _decoded(_replies, body, REPLY_BYTES_MAX)


def reply_head(sealed: bytes | memoryview) -> ReplyHead:
    """Return what a sealed reply answers, whoever has sealed it. Raises: Invalid."""
    return _decoded(_heads, memoryview(sealed)[MAC_BYTES:], REPLY_BYTES_MAX)


def refused(command_id: str, code: str, reason: str) -> TerminalReply:
    """Return the reply that the command surely was not carried out."""
    return TerminalReply(id=command_id, outcome=Outcome.REFUSED, code=code, reason=reason[:REASON_CHARS_MAX])


def unknown(command_id: str, code: str, reason: str) -> TerminalReply:
    """Return the reply that nobody can say what became of the command."""
    return TerminalReply(id=command_id, outcome=Outcome.UNKNOWN, code=code, reason=reason[:REASON_CHARS_MAX])


def _decoded(decoder: "msgspec.json.Decoder[Body]", body: bytes | memoryview, bytes_max: int) -> Body:
    if len(body) > bytes_max:
        raise Invalid(f"a message of {len(body)} bytes about an order", code="TOO_LARGE")
    try:
        return decoder.decode(body)
    except msgspec.DecodeError as e:
        raise Invalid(f"no message about an order: {e}", code="MALFORMED") from e
