"""Questions to workers. An answer that outlasts the caller becomes a job to poll."""

from typing import Final
from urllib.parse import urlencode

import msgspec
from starlette.responses import Response

from core.messages.jobs import Answer, JobStatus
from core.messages.message import Message
from gateway.routing import Call

POLL_AFTER_S: Final = 1


async def ask(call: Call, function: str, question: Message, timeout_ms: int | None = None) -> Answer | str:
    """Return a worker's answer; where it takes longer than the caller waits, the id of the job it is.

    Raises: what the worker did, Unavailable, RateLimited.
    """
    if timeout_ms is None:
        timeout_ms = call.services.settings.gateway.answer_timeout_ms
    return await call.services.queue.ask(function, question, tenant=call.caller.tenant, timeout_ms=timeout_ms)


async def answered(call: Call, function: str, question: Message, timeout_ms: int | None = None) -> Response:
    """Answer what a worker does, or where its answer will be. Raises as `ask` does."""
    answer = await ask(call, function, question, timeout_ms)
    return accepted(answer) if isinstance(answer, str) else written(call, answer)


def written(call: Call, answer: Answer) -> Response:
    """Send an answer; where a body cannot carry the next cursor, headers do."""
    response = Response(answer.body, media_type=answer.content_type)
    # The store writes the charset where there is one.
    response.headers["Content-Type"] = answer.content_type
    response.headers["Vary"] = "Accept, Authorization"
    if answer.next_cursor is not None:
        parameters = {**call.request.query_params, "cursor": answer.next_cursor}
        link = f"{call.request.url.path}?{urlencode(parameters)}"
        response.headers["X-Next-Cursor"] = answer.next_cursor
        response.headers["Link"] = f'<{link}>; rel="next"'
    return response


def accepted(job_id: str) -> Response:
    """Tell the caller where the answer will be."""
    body = msgspec.json.encode({"id": job_id, "status": JobStatus.QUEUED})
    headers = {"Location": f"/v1/jobs/{job_id}", "Retry-After": str(POLL_AFTER_S)}
    return Response(body, 202, headers, "application/json")
