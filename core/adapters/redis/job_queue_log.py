"""One line for each job that ended, in the trace of the request that asked for it."""

from functools import cache

from core.adapters.redis.job_queue_run import Attempt
from core.telemetry import lines, tracing
from core.telemetry.lines import NAME_LENGTH_MAX, Line


class _Ended(Line, kw_only=True):
    """waited_ms: from being asked to being started."""

    job: str
    function: str
    tenant: str
    outcome: str
    attempt: int
    waited_ms: int
    ms: int


def write_ended(attempt: Attempt, outcome: str, ended_at_ms: int) -> None:
    trace = tracing.CURRENT.get()
    if trace is None or not _wanted():
        return
    job = attempt.job
    lines.write(
        _Ended(
            at=lines.now(),
            event="job.ended",
            process="worker",
            trace_id=trace.trace_id,
            span_id=trace.span_id,
            job=attempt.job_id[:NAME_LENGTH_MAX],
            function=job.f[:NAME_LENGTH_MAX],
            tenant=job.tenant[:NAME_LENGTH_MAX],
            outcome=outcome,
            attempt=attempt.number,
            waited_ms=max(0, attempt.started_at_ms - job.et),
            ms=ended_at_ms - attempt.started_at_ms,
        )
    )


@cache
def _wanted() -> bool:
    return lines.wanted()
