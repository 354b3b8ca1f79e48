"""Market reads: each is a question to a database worker. An answer that outlasts the caller becomes a job to poll."""

import re
from typing import Final
from urllib.parse import urlencode

import msgspec
from starlette.responses import Response

from core.messages.annotations import MarkQuery
from core.messages.jobs import (
    JOBS,
    Answer,
    BarQuery,
    CompletenessQuery,
    JobStatus,
    QuarantineQuery,
    QuoteQuery,
    SymbolQuery,
    TickQuery,
)
from core.messages.message import Message
from gateway.parameters import parse
from gateway.routing import Call

WAIT_S_MAX: Final = 30
POLL_AFTER_S: Final = 1
_WAIT: Final = re.compile(r"(?:^|,)\s*wait\s*=\s*(\d{1,4})\s*(?:,|;|$)", re.I)  # source: RFC 7240


async def symbols(call: Call) -> Response:
    """List symbols with their span and size."""
    return await _ask(call, "market.symbols", parse(call.request, SymbolQuery))


async def quotes(call: Call) -> Response:
    """Answer the newest quote of each symbol."""
    return await _ask(call, "market.quotes", parse(call.request, QuoteQuery))


async def ticks(call: Call) -> Response:
    """Answer one page of ticks.

    In the order of (time_msc, source, epoch, seq).
    """
    return await _ask(call, "market.ticks", parse(call.request, TickQuery))


async def bars(call: Call) -> Response:
    """Answer one page of bars.

    Computed from the ticks on read, in the order of (time, source); a bar never mixes sources.
    """
    return await _ask(call, "market.bars", parse(call.request, BarQuery))


async def quarantine(call: Call) -> Response:
    """Answer one page of rows that were stored apart, with their reasons."""
    return await _ask(call, "market.quarantine", parse(call.request, QuarantineQuery))


async def marks(call: Call) -> Response:
    """Answer one page of the annotations that touch a stretch of a symbol's time.

    In the order of (start_ms, id).
    """
    return await _ask(call, "annotations.range", parse(call.request, MarkQuery))


async def completeness(call: Call) -> Response:
    """Certify that every tick sent is stored exactly once.

    One certificate for each source and epoch; the store is counted anew for every answer.
    """
    return await _ask(call, "market.completeness", parse(call.request, CompletenessQuery))


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


async def _ask(call: Call, function: str, query: Message) -> Response:
    assert isinstance(query, JOBS[function].request)
    wait_s = _preferred_wait_s(call)
    timeout_ms = call.services.settings.gateway.answer_timeout_ms if wait_s is None else wait_s * 1_000
    answer = await call.services.queue.ask(function, query, tenant=call.caller.tenant, timeout_ms=timeout_ms)
    response = accepted(answer) if isinstance(answer, str) else written(call, answer)
    if wait_s is not None:
        response.headers["Preference-Applied"] = f"wait={wait_s}"
    return response


def accepted(job_id: str) -> Response:
    """Tell the caller where the answer will be."""
    body = msgspec.json.encode({"id": job_id, "status": JobStatus.QUEUED})
    headers = {"Location": f"/v1/jobs/{job_id}", "Retry-After": str(POLL_AFTER_S)}
    return Response(body, 202, headers, "application/json")


def _preferred_wait_s(call: Call) -> int | None:
    found = _WAIT.search(call.request.headers.get("prefer", ""))
    return min(int(found[1]), WAIT_S_MAX) if found else None
