"""Which request this is: the W3C trace context and the request id, carried in a context variable and in every job.

Source: https://www.w3.org/TR/trace-context/. We write version 00 and read it and every later one by what 00 defines,
as the specification asks; of the flags we know "sampled".
"""

import random
import re
import secrets
from contextvars import ContextVar
from typing import Final

import msgspec

_TRACEPARENT: Final = re.compile(
    r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL
)
_OURS: Final = "00"
_NEVER: Final = "ff"
_SAMPLED: Final = 0x01
_INVALID_TRACE: Final = "0" * 32
_INVALID_SPAN: Final = "0" * 16
_random: Final = random.Random(secrets.randbits(256))  # noqa: S311 - ids must be unlikely to repeat, not secret


class Trace(msgspec.Struct, frozen=True):
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
    span_id = f"{_random.getrandbits(64) or 1:016x}"
    parent = _parent(traceparent)
    if parent is None:
        trace = Trace(f"{_random.getrandbits(128) or 1:032x}", span_id)
    else:
        trace = Trace(parent.trace_id, span_id, parent.flags)
    CURRENT.set(trace)
    return trace


def _parent(traceparent: str) -> Trace | None:
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == _NEVER or (version == _OURS and more is not None):
        return None
    if trace_id == _INVALID_TRACE or span_id == _INVALID_SPAN:
        return None
    # What later versions mean by their other bits is not ours to pass on.
    return Trace(trace_id, span_id, f"{int(flags, 16) & _SAMPLED:02x}")


def current_traceparent() -> str:
    """Return what the next hop is told, empty outside a request."""
    trace = CURRENT.get()
    return trace.traceparent if trace else ""
