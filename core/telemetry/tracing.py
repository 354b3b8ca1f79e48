"""Which request this is: the W3C trace context and the request id, carried in a context variable and in every job.

Source: https://www.w3.org/TR/trace-context/ (version 00).
"""

import random
import re
import secrets
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

_TRACEPARENT: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_INVALID_TRACE: Final = "0" * 32
_INVALID_SPAN: Final = "0" * 16
_random: Final = random.Random(secrets.randbits(256))  # noqa: S311 - ids must be unlikely to repeat, not secret


@dataclass(frozen=True, slots=True)
class Trace:
    """One hop of a trace. span_id: this hop. flags: the caller's sampling flags."""

    trace_id: str
    span_id: str
    flags: str = "01"

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


CURRENT: Final[ContextVar[Trace | None]] = ContextVar("tickgate_trace", default=None)


def start(traceparent: str = "") -> Trace:
    """Begin a hop below `traceparent`, or a trace of its own when that is missing or malformed."""
    parent = _TRACEPARENT.fullmatch(traceparent)
    span_id = f"{_random.getrandbits(64) or 1:016x}"
    if parent is None or parent[1] == _INVALID_TRACE or parent[2] == _INVALID_SPAN:
        trace = Trace(f"{_random.getrandbits(128) or 1:032x}", span_id)
    else:
        trace = Trace(parent[1], span_id, parent[3])
    CURRENT.set(trace)
    return trace


def current_traceparent() -> str:
    """Return what the next hop is told, empty outside a request."""
    trace = CURRENT.get()
    return trace.traceparent if trace else ""
