"""What happens to orders, as it happens: the tenant's audit trail, in pages, or as a stream of server-sent events.

Events of a trail have numbers without gaps, in the order in which they were committed. So a reader that was cut off
goes on where it was, and misses nothing. What is new is read when news of it come. Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Annotated, Any, Final

import msgspec
import structlog
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from core.errors.exceptions import Invalid, TickgateError, Unavailable
from core.messages.message import Message
from core.messages.orders import OrderId
from core.model.audit import AuditEntry
from gateway import answers
from gateway.authentication import require_still_valid
from gateway.parameters import parse
from gateway.routing import Call
from gateway.trail_feed import BATCH

log = structlog.get_logger(__name__)

EVENT_STREAM: Final = "text/event-stream"
LAST_EVENT: Final = "Last-Event-ID"
BEAT_S: Final = 10.0
"""Silence is broken so often, or proxies would take the connection for dead; and the token is looked at again."""
PAGE_MAX: Final = 1_000
PAGE_DEFAULT: Final = 100
SEQ_DIGITS_MAX: Final = 18

Seq = Annotated[int, msgspec.Meta(ge=0, le=10**SEQ_DIGITS_MAX)]


class StreamQuery(Message, frozen=True, kw_only=True):
    """Where to begin. after: the event behind which to go on; without it, what happens from now on."""

    after: Seq | None = None


class AuditQuery(Message, frozen=True, kw_only=True):
    """One page of the audit trail. cursor: `next_cursor` of the page before."""

    cursor: Seq = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=PAGE_MAX)] = PAGE_DEFAULT
    order: OrderId | None = None


class AuditItem(msgspec.Struct, kw_only=True):
    """An event. hash: SHA-256 of it and of all before it; event: as it was hashed, but for its spaces."""

    seq: int
    hash: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    event: dict[str, Any]


class AuditPage(msgspec.Struct, kw_only=True):
    """A page of the audit trail, oldest first."""

    items: list[AuditItem]
    next_cursor: answers.NextCursor


async def audit(call: Call) -> Response:
    """Read the tenant's audit trail: all of it, or what concerns one order."""
    query = parse(call.request, AuditQuery)
    found = await call.services.audit.events(
        call.caller.tenant, after=query.cursor, limit=query.limit + 1, order=query.order or ""
    )
    page = found[: query.limit]
    cursor = str(page[-1].seq) if len(found) > query.limit else None
    items = [{"seq": one.seq, "hash": one.hash.hex(), "event": msgspec.Raw(one.event)} for one in page]
    body = msgspec.json.encode({"items": items, "next_cursor": cursor})
    return Response(body, media_type="application/json")


async def stream(call: Call) -> Response:
    """Follow what happens to orders, as server-sent events.

    Each event's id is its number in the audit trail; send the last one as `Last-Event-ID`, or `after`, to go on there.
    """
    query = parse(call.request, StreamQuery)
    after = _last_event(call) if query.after is None else query.after
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(call.services.streams.one(call.caller.tenant))
        if after is None:
            after = await call.services.audit.newest(call.caller.tenant)
        bell = stack.enter_context(call.services.trail.follow(call.caller.tenant))
        return _Stream(call, after, bell, stack.pop_all())


class _Stream(StreamingResponse):
    """Events as they come. held: the place that is given back at the end."""

    def __init__(self, call: Call, after: int, bell: asyncio.Event, held: AsyncExitStack) -> None:
        super().__init__(
            _events(call, after, bell), media_type=EVENT_STREAM, headers={"Cache-Control": "no-store"}
        )
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._held:
            if scope["method"] == "HEAD":
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            await super().__call__(scope, receive, send)


async def _events(call: Call, after: int, bell: asyncio.Event) -> AsyncIterator[bytes]:
    yield b"retry: 1000\n\n"
    beat_at_s = time.monotonic() + BEAT_S
    while time.time() < call.caller.expires_at_s:
        # Before it is read: what comes from here on rings again.
        bell.clear()
        try:
            found = await call.services.trail.read(call.caller.tenant, after)
        except Unavailable:
            # Nothing is lost: it goes on where it is.
            found = ()
        for entry in found:
            after = entry.seq
            if entry.type.startswith("order."):
                yield _written(entry)
        if time.monotonic() >= beat_at_s:
            beat_at_s = time.monotonic() + BEAT_S
            yield b": still here\n\n"
            try:
                await require_still_valid(call.request, call.services)
            except TickgateError:
                return
        if len(found) < BATCH:
            await call.services.trail.wait(bell)


def _written(entry: AuditEntry) -> bytes:
    # JSON holds no line break outside of its texts, and escapes those inside.
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (entry.seq, entry.type.encode(), entry.event)


def _last_event(call: Call) -> int | None:
    text = call.request.headers.get(LAST_EVENT, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= SEQ_DIGITS_MAX):
        raise Invalid(f"{LAST_EVENT} is the id of an event", code="BAD_CURSOR")
    return int(text)
