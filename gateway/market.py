"""Market reads: each is a question to a database worker. An answer that outlasts the caller becomes a job to poll."""

import re
from typing import Final

from starlette.responses import Response

from core.messages.annotations import MarkQuery
from core.messages.jobs import (
    JOBS,
    BarQuery,
    CompletenessQuery,
    QuarantineQuery,
    QuoteQuery,
    SymbolQuery,
    TickQuery,
)
from core.messages.message import Message
from gateway.asking import answered
from gateway.parameters import parse
from gateway.routing import Call

WAIT_S_MAX: Final = 30
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


async def _ask(call: Call, function: str, query: Message) -> Response:
    assert isinstance(query, JOBS[function].request)
    wait_s = _preferred_wait_s(call)
    response = await answered(call, function, query, None if wait_s is None else wait_s * 1_000)
    if wait_s is not None:
        response.headers["Preference-Applied"] = f"wait={wait_s}"
    return response


def _preferred_wait_s(call: Call) -> int | None:
    found = _WAIT.search(call.request.headers.get("prefer", ""))
    return min(int(found[1]), WAIT_S_MAX) if found else None
