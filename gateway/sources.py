"""/v1/sources: a tenant's feeds of ticks. A connector's token is shown once, in the answer that made it.

No job is made of these requests: a token would lie in Redis. It is made here, its hash and the sealed answer are
written in one transaction, and then nobody but the caller has it. Whoever may write a tenant's sources may give any of
them a new token, for it is not the caller who speaks with it but a connector.
"""

import re
from typing import Annotated, Final

import msgspec
import structlog
from starlette.responses import Response

from core.errors.exceptions import NotFound
from core.messages.message import Message
from core.model.sources import (
    LABEL_PATTERN,
    NAME_PATTERN,
    TITLE_LENGTH_MAX,
    TITLE_PATTERN,
    SourceState,
    SourceToken,
    new_token,
)
from gateway.answers import EpochMs, NextCursor
from gateway.authentication import require_still_valid
from gateway.bodies import parse_json
from gateway.idempotency import stored
from gateway.parameters import NoParameters, parse
from gateway.records import expected_version
from gateway.routing import Call

log = structlog.get_logger(__name__)

PAGE_MAX: Final = 500
PAGE_DEFAULT: Final = 100
_NAME: Final = re.compile(NAME_PATTERN)

SourceName = Annotated[str, msgspec.Meta(pattern=NAME_PATTERN, examples=["icm-live-c4q7v2mx5tra"])]
SourceTitle = Annotated[
    str,
    msgspec.Meta(
        description="What people call it.",
        max_length=TITLE_LENGTH_MAX,
        pattern=TITLE_PATTERN,
        examples=["IC Markets, live"],
    ),
]


class SourceQuery(Message, frozen=True, kw_only=True):
    """One page of sources, in the order of their names. cursor: `next_cursor` of the page before."""

    cursor: SourceName | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=PAGE_MAX)] = PAGE_DEFAULT


class SourceWish(Message, frozen=True, kw_only=True):
    """A source to be made."""

    label: Annotated[
        str,
        msgspec.Meta(
            description="How its name begins; the rest is random, for names are one space for all tenants.",
            pattern=LABEL_PATTERN,
            examples=["icm-live"],
        ),
    ]
    title: SourceTitle = ""


class SourceChange(Message, frozen=True, kw_only=True):
    """What can be changed of a source; all of it, each time."""

    title: SourceTitle


class TerminalNotice(msgspec.Struct, kw_only=True):
    """What a connector said about its terminal."""

    code: Annotated[str, msgspec.Meta(description="See the wire protocol's notices.")]
    symbol: str
    detail: str
    at_ms: int


class FeedSource(msgspec.Struct, kw_only=True):
    """A source without its token."""

    name: SourceName
    title: SourceTitle
    version: Annotated[str, msgspec.Meta(description="What If-Match names; also the ETag.")]
    created_at_ms: EpochMs
    updated_at_ms: EpochMs
    rotated_at_ms: Annotated[EpochMs | None, msgspec.Meta(description="When it got another token last.")]
    closed_at_ms: Annotated[EpochMs | None, msgspec.Meta(description="From then on nobody may write it.")]
    connected: Annotated[bool, msgspec.Meta(description="Whether a bridge holds it for a connector.")]
    last_seen_at_ms: Annotated[EpochMs | None, msgspec.Meta(description="When a bridge last held it so.")]
    epoch: Annotated[int | None, msgspec.Meta(description="The newest life of a connector's spool.")]
    install: Annotated[str | None, msgspec.Meta(description="How that spool names itself.")]
    epoch_started_at_ms: EpochMs | None
    last_seq: Annotated[
        int | None,
        msgspec.Meta(description="Up to here the connector has counted what is durable; a little late."),
    ]
    last_notice: TerminalNotice | None


class SourceWithToken(FeedSource, kw_only=True):
    """A source with its token, which is never shown again."""

    token: Annotated[str, msgspec.Meta(description="What its connector shows in HELLO.")]


class SourcePage(msgspec.Struct, kw_only=True):
    """A page of sources, closed ones too."""

    items: list[FeedSource]
    next_cursor: NextCursor


async def listed(call: Call) -> Response:
    """List the tenant's sources, closed ones too."""
    query = parse(call.request, SourceQuery)
    found = await call.services.sources.page(call.caller.tenant, after=query.cursor, limit=query.limit + 1)
    page = found[: query.limit]
    items = [msgspec.convert(state, FeedSource, from_attributes=True) for state in page]
    return _json(SourcePage(items=items, next_cursor=page[-1].name if len(found) > query.limit else None))


async def read(call: Call) -> Response:
    """Show a source and how it stands."""
    parse(call.request, NoParameters)
    return _one(await call.services.sources.read(call.caller.tenant, _asked_for(call)))


async def create(call: Call) -> Response:
    """Make a source and show its token, once."""
    parse(call.request, NoParameters)
    wish = parse_json(call, SourceWish)
    token = new_token()
    async with call.work() as work:
        # Inside: to get here may have taken long.
        await require_still_valid(call.request, call.services)
        state = await call.services.sources.create(work, wish.label, wish.title, token)
        response = _one(state, token, status=201)
        response.headers["Location"] = f"/v1/sources/{state.name}"
        await work.answer(stored(response))
    log.info("source.created", tenant=call.caller.tenant, source=state.name)
    return response


async def update(call: Call) -> Response:
    """Replace what is said of a source that has not changed since."""
    parse(call.request, NoParameters)
    name, expected = _asked_for(call), expected_version(call)
    change = parse_json(call, SourceChange)
    sources = call.services.sources
    return _one(await sources.update(call.caller.tenant, name, change.title, expected=expected))


async def rotate(call: Call) -> Response:
    """Give a source a new token and show it, once.

    Whoever is connected with the one before is cut off within seconds, and comes in no more.
    """
    parse(call.request, NoParameters)
    name, token = _asked_for(call), new_token()
    async with call.work() as work:
        await require_still_valid(call.request, call.services)
        state = await call.services.sources.rotate(work, name, token)
        response = _one(state, token)
        await work.answer(stored(response))
    log.info("source.rotated", tenant=call.caller.tenant, source=name)
    return response


async def close(call: Call) -> Response:
    """Close a source for good.

    Its connector is cut off within seconds. Its ticks stay, and its name is never given again.
    """
    parse(call.request, NoParameters)
    name = _asked_for(call)
    await call.services.sources.close(call.caller.tenant, name)
    log.info("source.closed", tenant=call.caller.tenant, source=name)
    return Response(status_code=204)


def _asked_for(call: Call) -> str:
    name: str = call.request.path_params["name"]
    if not _NAME.fullmatch(name):
        raise NotFound("there is no such source", code="SOURCE_NOT_FOUND")
    return name


def _one(state: SourceState, token: SourceToken | None = None, status: int = 200) -> Response:
    shown = msgspec.convert(state, FeedSource, from_attributes=True)
    if token is not None:
        shown = SourceWithToken(**msgspec.structs.asdict(shown), token=token.text)
    response = _json(shown, status)
    response.headers["ETag"] = f'"{state.version}"'
    return response


def _json(body: msgspec.Struct, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")
