"""arq 0.28's keys and records, typed. A stock arq client can enqueue here and a stock arq worker can consume.

Keys: `arq:job:<id>` what is asked, `arq:in-progress:<id>` who runs it, `arq:retry:<id>` how often it was started,
`arq:result:<id>` how it ended, `arq:abort` ids to be cancelled, and one sorted set a queue, which is the truth.
Ours: `<queue>:ready`, a list of ids worth looking at; `<queue>:dead`, dead letters on their way to the ledger;
`<queue>:workers` and `<queue>:worker:<owner>`, who is alive and how busy; `<queue>:slot:<function>:<slot>`, a
schedule's slot that was taken; `arq:progress:<id>`, `arq:failed:<id>`, how far a job is and when it first failed; the
channels `<queue>:cancel` and `arq:reply:<hub>`, on which workers hear of cancellations and an asker of its own jobs.
"""

from typing import Any, Final

import msgspec
from arq.constants import (
    abort_jobs_ss,
    health_check_key_suffix,
    in_progress_key_prefix,
    job_key_prefix,
    result_key_prefix,
    retry_key_prefix,
)

from core.messages.codec import encode
from core.messages.jobs import CANCELLED, Answer, ErrorReport, JobProgress, JobState, JobStatus, report_of

ATTEMPTS_KEPT_S: Final = 88_400  # source: arq.worker.Worker.run_job
ABORTED_KEY: Final = abort_jobs_ss
SCHEDULED_PREFIX: Final = "cron."
"""How the id of a job begins that a schedule asked for; nobody waits for its result."""
INLINE_BYTES_MAX: Final = 256 * 1024
"""A larger result is fetched by its asker: a server cuts subscribers off that have too much to read."""


class Job(msgspec.Struct):
    """What is asked. f: function, a: arguments, k: keywords, t: attempt to start at, et: asked at, epoch ms."""

    f: str
    a: list[Any]
    k: dict[str, Any]
    et: int
    t: int | None = None

    @property
    def tenant(self) -> str:
        return str(self.k.get("tenant", ""))

    @property
    def traceparent(self) -> str:
        return str(self.k.get("traceparent", ""))


class Result(msgspec.Struct):
    """How it ended. s: well, r: answer or error report, st and ft: started and finished, epoch ms, q: queue."""

    t: int
    f: str
    a: list[Any]
    k: dict[str, Any]
    et: int
    s: bool
    r: msgspec.Raw
    st: int
    ft: int
    q: str
    id: str

    @property
    def tenant(self) -> str:
        return str(self.k.get("tenant", ""))


decode_job: Final = msgspec.msgpack.Decoder(Job).decode
decode_result: Final = msgspec.msgpack.Decoder(Result).decode
_decode_answer: Final = msgspec.msgpack.Decoder(Answer).decode
_decode_report: Final = msgspec.msgpack.Decoder(ErrorReport).decode
decode_progress: Final = msgspec.msgpack.Decoder(JobProgress).decode


def queue_key(queue: str) -> str:
    return f"arq:queue:{queue}"


def ready_key(queue: str) -> str:
    return f"{queue_key(queue)}:ready"


def health_key(queue: str) -> str:
    return queue_key(queue) + health_check_key_suffix


def job_key(job_id: str) -> str:
    return job_key_prefix + job_id


def claim_key(job_id: str) -> str:
    return in_progress_key_prefix + job_id


def attempts_key(job_id: str) -> str:
    return retry_key_prefix + job_id


def result_key(job_id: str) -> str:
    return result_key_prefix + job_id


def progress_key(job_id: str) -> str:
    return f"arq:progress:{job_id}"


def failed_key(job_id: str) -> str:
    return f"arq:failed:{job_id}"


def workers_key(queue: str) -> str:
    return f"{queue_key(queue)}:workers"


def worker_key(queue: str, owner: str) -> str:
    return f"{queue_key(queue)}:worker:{owner}"


def dead_key(queue: str) -> str:
    return f"{queue_key(queue)}:dead"


def slot_key(queue: str, function: str, slot: int) -> str:
    return f"{queue_key(queue)}:slot:{function}:{slot}"


def cancel_channel(queue: str) -> str:
    return f"{queue_key(queue)}:cancel"


def job_keys(job_id: str, *, plain: bool = False) -> tuple[str, ...]:
    """Return every key that ends with the job. plain: it came through at once and said nothing on its way."""
    always = (claim_key(job_id), attempts_key(job_id), job_key(job_id))
    return always if plain else (*always, progress_key(job_id), failed_key(job_id))


def reply_channel(job_id: str) -> str | None:
    """Return where the asker of this job listens; stock clients' ids name nobody."""
    hub, separator, _ = job_id.partition(":")
    return f"arq:reply:{hub}" if separator else None


def reply(job_id: str, result: bytes) -> bytes:
    return job_id.encode() + b"\0" + (result if len(result) <= INLINE_BYTES_MAX else b"")


def parse_reply(message: bytes) -> tuple[str, bytes]:
    """Return the job id and the result, which is empty when it has to be fetched."""
    job_id, _, result = message.partition(b"\0")
    return job_id.decode(), result


def encode_result(
    job: Job,
    value: Any,
    *,
    job_id: str,
    queue: str,
    attempt: int,
    started_at_ms: int,
    ended_at_ms: int,
    ok: bool,
) -> bytes:
    return encode(
        {
            "t": attempt,
            "f": job.f,
            "a": job.a,
            "k": job.k,
            "et": job.et,
            "s": ok,
            "r": value,
            "st": started_at_ms,
            "ft": ended_at_ms,
            "q": queue_key(queue),
            "id": job_id,
        }
    )


def answer_of(result: Result) -> Answer | ErrorReport:
    """Return what was answered, or why not."""
    try:
        return _decode_answer(result.r) if result.s else _decode_report(result.r)
    except msgspec.DecodeError as e:
        # A stock worker sends a sentence when it cannot encode what a function returned.
        return report_of(e)


def state_of(result: Result) -> JobState:
    outcome = answer_of(result)
    return JobState(
        id=result.id,
        function=result.f,
        status=_status_of(outcome),
        attempts=result.t,
        enqueued_at_ms=result.et,
        started_at_ms=result.st,
        finished_at_ms=result.ft,
        answer=outcome if isinstance(outcome, Answer) else None,
        error=outcome if isinstance(outcome, ErrorReport) else None,
    )


def _status_of(outcome: Answer | ErrorReport) -> JobStatus:
    if isinstance(outcome, Answer):
        return JobStatus.FINISHED
    return JobStatus.CANCELLED if outcome == CANCELLED else JobStatus.FAILED
