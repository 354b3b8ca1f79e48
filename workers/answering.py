"""What jobs that answer questions share: a question is made of what came, a trace goes on, an answer is JSON."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from core.errors.exceptions import Invalid
from core.messages.jobs import JOBS, Answer
from core.ports.jobs import JobFunction
from core.telemetry import tracing

JSON_TYPE: Final = "application/json"


def question(name: str, answer: Callable[[Any, str], Awaitable[Answer]]) -> JobFunction:
    """Return the job `name`. answer: is given the question, as the job table has it, and the tenant."""

    async def run(_ctx: Mapping[str, Any], request: Any, *, tenant: str, traceparent: str = "") -> Answer:
        tracing.start(traceparent)
        return await answer(converted(request, JOBS[name].request), tenant)

    return JobFunction(name=name, run=run)


def converted(plain: Any, kind: type[Any]) -> Any:
    """Return a message made of what a job carries. Raises: Invalid."""
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as e:
        raise Invalid(str(e)) from e


def one(body: Mapping[str, Any], rows: int = 1) -> Answer:
    """Answer a thing."""
    return Answer(content_type=JSON_TYPE, body=msgspec.json.encode(body), rows=rows)


def page(items: Iterable[Any], cursor: str | None = None) -> Answer:
    """Answer a list, and where it goes on."""
    listed = list(items)
    body = msgspec.json.encode({"items": listed, "next_cursor": cursor})
    return Answer(content_type=JSON_TYPE, body=body, next_cursor=cursor, rows=len(listed))
