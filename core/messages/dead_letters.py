"""Dead letters: jobs that failed for good, with everything needed to understand them and to ask them again."""

from enum import StrEnum
from typing import Any

import msgspec

from core.errors.categories import Category
from core.messages.message import Message


class _Asked(msgspec.Struct):
    """As much of a job as shows what was asked."""

    a: list[Any]


class DeadLetterState(StrEnum):
    """Whether somebody has asked it again."""

    DEAD = "dead"
    REPLAYED = "replayed"


class DeadLetter(Message, frozen=True, kw_only=True):
    """One of them. id: sorts by time. job: as the queue carried it. public: the error, without secrets.

    tenant: empty for the system's own jobs. first_failed_at_ms: equals the last where its first worker was killed.
    """

    id: str
    job_id: str
    queue: str
    function: str
    tenant: str
    job: bytes
    attempts: int
    category: Category
    code: str
    public: str
    fingerprint: str
    traceparent: str
    first_failed_at_ms: int
    last_failed_at_ms: int
    state: DeadLetterState = DeadLetterState.DEAD
    replay_job_id: str | None = None


def request_of(letter: DeadLetter) -> msgspec.Raw | None:
    """Return what was asked, as JSON; None where it cannot be read."""
    try:
        asked = msgspec.msgpack.decode(letter.job, type=_Asked).a
        return msgspec.Raw(msgspec.json.encode(asked[0] if asked else None))
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError):
        return None
