"""/v1/dead-letters: a tenant's jobs that failed for good, and asking one of them again."""

from typing import Annotated, Any, Final

import msgspec
from starlette.responses import Response

from core.errors.categories import Category
from core.infrastructure.replaying import replay as replayed
from core.messages.dead_letters import DeadLetter, DeadLetterState, request_of
from core.messages.jobs import JOBS
from core.messages.message import Message
from core.model.principals import Scope
from gateway.answers import EpochMs, NextCursor, Uint
from gateway.asking import accepted
from gateway.authentication import require_scope
from gateway.parameters import NoParameters, parse
from gateway.routing import Call

PAGE_MAX: Final = 500
PAGE_DEFAULT: Final = 100
JSON_TYPE: Final = "application/json"


class DeadLetterQuery(Message, frozen=True, kw_only=True):
    """One page, the youngest first."""

    cursor: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{27}$")] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=PAGE_MAX)] = PAGE_DEFAULT


class BuriedJob(msgspec.Struct, kw_only=True):
    """A job that failed for good."""

    id: str
    job_id: str
    queue: str
    function: str
    request: Annotated[Any, msgspec.Meta(description="What was asked; null where it cannot be read.")]
    attempts: Uint
    category: Category
    code: str
    error: Annotated[str, msgspec.Meta(description="What went wrong, as its caller was told.")]
    fingerprint: Annotated[str, msgspec.Meta(description="The same for the same fault; finds the log lines.")]
    traceparent: str
    first_failed_at_ms: EpochMs
    last_failed_at_ms: EpochMs
    state: DeadLetterState
    replay_job_id: Annotated[
        str | None, msgspec.Meta(description="The job it was asked again as; null while it is dead.")
    ]


class DeadLetterPage(msgspec.Struct, kw_only=True):
    """A page of dead letters."""

    items: list[BuriedJob]
    next_cursor: NextCursor


async def listed(call: Call) -> Response:
    """List the tenant's dead letters, the youngest first."""
    query = parse(call.request, DeadLetterQuery)
    found = await call.services.dead_letters.page(call.caller.tenant, query.cursor, query.limit + 1)
    page = found[: query.limit]
    body = DeadLetterPage(
        items=[buried(letter) for letter in page],
        next_cursor=page[-1].id if len(found) > query.limit else None,
    )
    return Response(msgspec.json.encode(body), media_type=JSON_TYPE)


async def one(call: Call) -> Response:
    """Show one dead letter."""
    parse(call.request, NoParameters)
    return Response(msgspec.json.encode(buried(await _asked_for(call))), media_type=JSON_TYPE)


async def replay(call: Call) -> Response:
    """Ask the job of a dead letter again.

    It is a job like any other from then on. The caller needs the scope its function asks for as well.
    """
    parse(call.request, NoParameters)
    letter = await _asked_for(call)
    require_scope(call.caller, JOBS[letter.function].scope if letter.function in JOBS else Scope.JOBS_WRITE)
    letter = await replayed(
        call.services.dead_letters, call.services.queue_control, letter.id, call.caller.tenant
    )
    assert letter.replay_job_id is not None, "a replayed letter names its job"
    return accepted(letter.replay_job_id)


async def _asked_for(call: Call) -> DeadLetter:
    return await call.services.dead_letters.one(call.request.path_params["id"], call.caller.tenant)


def buried(letter: DeadLetter) -> BuriedJob:
    """Return what may be shown of it."""
    return BuriedJob(
        id=letter.id,
        job_id=letter.job_id,
        queue=letter.queue,
        function=letter.function,
        request=request_of(letter),
        attempts=letter.attempts,
        category=letter.category,
        code=letter.code,
        error=letter.public,
        fingerprint=letter.fingerprint,
        traceparent=letter.traceparent,
        first_failed_at_ms=letter.first_failed_at_ms,
        last_failed_at_ms=letter.last_failed_at_ms,
        state=letter.state,
        replay_job_id=letter.replay_job_id,
    )
