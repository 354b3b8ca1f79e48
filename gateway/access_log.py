"""One line for each request: who asked which route and what became of it. No path, no query, nothing a caller wrote.

Written past the log's pipeline, which costs four times as much (15 us against 4 us a line, measured): what it would add
is here already, and what it would hide cannot get in.
"""

import sys
from datetime import UTC, datetime
from typing import Final

import msgspec
from starlette.types import Scope

from core.model.principals import Principal
from core.telemetry.tracing import Trace

METHOD_LENGTH_MAX: Final = 16
NAME_LENGTH_MAX: Final = 64
_encode: Final = msgspec.json.Encoder().encode


class _Line(msgspec.Struct, omit_defaults=True):
    """Named and ordered as the other log lines. route: its template; bytes: of the body that was sent."""

    at: str
    level: str
    event: str
    process: str
    trace_id: str
    span_id: str
    method: str
    route: str
    status: int
    ms: float
    bytes: int
    tenant: str = ""
    subject: str = ""


def write(scope: Scope, trace: Trace, *, status: int, elapsed_s: float, bytes_sent: int) -> None:
    """Write the line of a request that has ended; status 0: its caller went away before there was an answer."""
    state = scope["state"]
    principal: Principal | None = state.get("principal")
    line = _Line(
        at=datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        level="info",
        event="http.answered",
        process="gateway",
        trace_id=trace.trace_id,
        span_id=trace.span_id,
        method=scope["method"][:METHOD_LENGTH_MAX],
        route=state["route"],
        status=status,
        ms=round(elapsed_s * 1_000, 2),
        bytes=bytes_sent,
        tenant=principal.tenant[:NAME_LENGTH_MAX] if principal else "",
        subject=principal.subject[:NAME_LENGTH_MAX] if principal else "",
    )
    out = sys.stdout.buffer
    out.write(_encode(line) + b"\n")
    out.flush()
