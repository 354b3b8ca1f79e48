"""Jobs that outlasted their caller: where they stand, their answers, and their end. Only their tenant sees them."""

from typing import Any, Final

import msgspec
from starlette.responses import Response

from core.errors.exceptions import Conflict, NotFound
from core.messages.jobs import ENDED, JOBS, JobState, raised_from
from core.model.principals import Scope
from gateway.asking import POLL_AFTER_S, written
from gateway.authentication import require_scope
from gateway.parameters import NoParameters, parse
from gateway.routing import Call

JOB_ID_LENGTH_MAX: Final = 64
JSON_TYPE: Final = "application/json"


async def state(call: Call) -> Response:
    """Say where a job stands; a finished one's JSON answer comes along."""
    return _shown(await _job(call))


async def cancel(call: Call) -> Response:
    """End a job.

    One that waits is gone at once, one that runs as soon as its worker has heard of it. Whoever waits for it is told.
    """
    job = await _job(call)
    job = await call.services.queue_control.cancel(job.id, tenant=call.caller.tenant)
    return _shown(job, 200 if job.status in ENDED else 202)


async def answer(call: Call) -> Response:
    """Send a finished job's answer, or its error, as if it had come in time."""
    job = await _job(call)
    if job.error is not None:
        raise raised_from(job.error)
    if job.answer is None:
        raise Conflict("the job has not finished yet", code="JOB_NOT_FINISHED")
    return written(call, job.answer)


async def _job(call: Call) -> JobState:
    parse(call.request, NoParameters)
    job_id = call.request.path_params["id"]
    if len(job_id) > JOB_ID_LENGTH_MAX or not job_id.isascii() or not job_id.isprintable():
        raise NotFound("there is no such job", code="JOB_NOT_FOUND")
    job = await call.services.queue.state(job_id, tenant=call.caller.tenant)
    # A job's answer is worth what its function is worth.
    require_scope(call.caller, JOBS[job.function].scope if job.function in JOBS else Scope.DEAD_LETTERS_READ)
    return job


def _shown(job: JobState, status: int = 200) -> Response:
    body: dict[str, Any] = {
        "id": job.id,
        "function": job.function,
        "status": job.status,
        "attempts": job.attempts,
        "enqueued_at_ms": job.enqueued_at_ms,
        "started_at_ms": job.started_at_ms,
        "finished_at_ms": job.finished_at_ms,
        "progress": job.progress,
        "error": job.error,
        "answer": None,
        "answer_url": None,
    }
    if job.answer is not None:
        body["answer_url"] = f"/v1/jobs/{job.id}/answer"
        if job.answer.content_type == JSON_TYPE:
            body["answer"] = msgspec.Raw(job.answer.body)
    headers = {} if job.status in ENDED else {"Retry-After": str(POLL_AFTER_S)}
    return Response(msgspec.json.encode(body), status, headers, JSON_TYPE)
