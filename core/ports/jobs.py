"""Jobs: asking a worker, working a queue off, and what becomes of a job that failed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from core.messages.dead_letters import DeadLetter
    from core.messages.jobs import Answer, ErrorReport, JobState
    from core.messages.message import Message
    from core.messages.queues import QueueStanding
    from core.model.retries import RetryClass


class JobQueue(Protocol):
    """Ask a worker and be told the answer without polling."""

    async def ask(self, function: str, request: Message, *, tenant: str, timeout_ms: int) -> Answer | str:
        """Enqueue and wait. Return the answer, or the job id when it outlasts `timeout_ms`.

        function: a row of `core.messages.jobs.JOBS`.
        Raises: the worker's own TickgateError, or Unavailable when the queue cannot be reached.
        """

    async def state(self, job_id: str, *, tenant: str) -> JobState:
        """Return where the job stands. Raises: NotFound (also for another tenant's), Unavailable."""

    async def served(self, queue: str) -> bool:
        """Tell whether a worker of this queue is alive. Raises: Unavailable."""


class QueueControl(Protocol):
    """Look at queues and at jobs from outside, and interfere."""

    async def standings(self) -> Sequence[QueueStanding]:
        """Return how every queue stands. Raises: Unavailable."""

    async def cancel(self, job_id: str, *, tenant: str) -> JobState:
        """End a job. One that waits is CANCELLED at once, one that runs as soon as its worker has heard of it.

        Raises: NotFound (also for another tenant's), Conflict (code JOB_ENDED), Unavailable.
        """

    async def put(self, job_id: str, queue: str, job: bytes) -> None:
        """Ask a job again, from now on under `job_id`. job: as a dead letter keeps it.

        Raises: Unavailable, Corrupt: it cannot be read.
        """

    async def buried(self, queue: str, count_max: int) -> Sequence[bytes]:
        """Return the oldest dead letters that wait for the ledger, encoded. Raises: Unavailable."""

    async def forget_buried(self, queue: str, letters: Sequence[bytes]) -> None:
        """Let go of dead letters the ledger holds now. Doing it twice changes nothing. Raises: Unavailable."""


class DeadLetters(Protocol):
    """Jobs that failed for good. tenant None: everybody's, the system's own too, for the operator only."""

    async def record(self, letters: Sequence[DeadLetter]) -> None:
        """Keep them; one that is there already stays as it is. Raises: Unavailable."""

    async def page(self, tenant: str | None, before: str | None, count: int) -> Sequence[DeadLetter]:
        """Return up to `count`, the youngest first, older than the one with the id `before`. Raises: Unavailable."""

    async def one(self, letter_id: str, tenant: str | None) -> DeadLetter:
        """Return one. Raises: NotFound (also for another tenant's), Unavailable."""

    async def replay(
        self, letter_id: str, tenant: str | None, put: Callable[[DeadLetter], Awaitable[str]]
    ) -> DeadLetter:
        """Mark it replayed if `put`, which returns the new job's id, does not fail. At most one replay at a time.

        Raises: NotFound, Conflict (code DEAD_LETTER_REPLAYED), Unavailable, and what `put` raises.
        """

    async def purge(self, kept_days: int) -> int:
        """Delete those that failed more than `kept_days` ago, and return how many. Raises: Unavailable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """How one queue is worked off. tries: starts of one job, killed workers' included; expiry_s: a job not started
    by then is not worth starting; keep_s: how long an answer nobody has fetched is kept.
    """

    name: str
    concurrency: int
    timeout_s: float
    tries: int
    expiry_s: float
    keep_s: float
    drain_s: float
    retry: RetryClass


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A job asked once in every slot of `every_s` seconds of the queue's clock, however many workers there are.

    A slot nobody lived in is not made up for.
    """

    function: str
    queue: str
    every_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFunction:
    """A job function as arq knows it: `run(ctx, request, *, tenant, ...)`, request as plain decoded msgpack.

    ctx: `job_id`, `job_try`, and `progress(done, total=None, note="")`, which tells whoever polls the job.
    timeout_s, tries, retry: its own, where they differ from its queue's.
    """

    name: str
    run: Callable[..., Awaitable[Any]]
    timeout_s: float | None = None
    tries: int | None = None
    retry: RetryClass | None = None


class JobRunner(Protocol):
    """The worker's side of a queue."""

    async def run(
        self,
        queue: QueueLimits,
        functions: Sequence[JobFunction],
        report: Callable[..., ErrorReport],
        stop: asyncio.Event,
        schedules: Sequence[Schedule] = (),
    ) -> None:
        """Work the queue off until `stop`, then finish what runs; survive the queue's store going away.

        report: logs an exception once and says what its caller may know. schedules: this queue's.
        """
