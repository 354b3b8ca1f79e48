"""One line for each request: who asked which route and what became of it. No path, no query, nothing a caller wrote."""

from typing import Final

from starlette.types import Scope

from core.model.principals import Principal
from core.telemetry import lines
from core.telemetry.lines import NAME_LENGTH_MAX, Line
from core.telemetry.tracing import Trace

METHOD_LENGTH_MAX: Final = 16


class _Answered(Line, kw_only=True):
    """route: its template; bytes: of the body that was sent."""

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
    lines.write(
        _Answered(
            at=lines.now(),
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
    )
