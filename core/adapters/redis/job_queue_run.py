"""One job in a worker's hands: what its function is given, and what came of it."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from core.adapters.redis import job_queue_format as arq_format
from core.adapters.redis.job_queue_format import Job
from core.adapters.redis.link import Link
from core.errors.exceptions import Unavailable
from core.messages.codec import encode
from core.messages.jobs import ErrorReport, JobProgress

PROGRESS_INTERVAL_S: Final = 0.2
"""A job may say how far it is as often as it likes; that often it is passed on."""
PROGRESS_KEPT_MS: Final = 3_600_000
NOTE_LENGTH_MAX: Final = 200

Report = Callable[..., ErrorReport]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class Run:
    """One job on its way here. claimed: it is ours; deserted: somebody else has it now; cancelled: its owner wants it
    to end; ending: its function is through, so nothing is left to cancel.
    """

    task: asyncio.Task[None]
    claimed: bool = False
    deserted: bool = False
    cancelled: bool = False
    ending: bool = False

    def cancel(self) -> None:
        """End it for its owner; does nothing where it ends anyway."""
        if self.claimed and not self.ending and not self.cancelled:
            self.cancelled = True
            self.task.cancel()

    def desert(self) -> None:
        """Stop at once and touch nothing: it is somebody else's."""
        self.deserted = True
        self.task.cancel()


@dataclass(slots=True)
class Outcome:
    """What a run came to. value: the answer or the report of `error`."""

    value: Any
    error: BaseException | None = None
    ok: bool = True


class Progress:
    """What a function calls to say how far it is. Passed on through Redis, now and then; never waits."""

    __slots__ = ("_commands", "_job_id", "_told_at_s")

    def __init__(self, commands: Link, job_id: str) -> None:
        self._commands = commands
        self._job_id = job_id
        self._told_at_s = float("-inf")

    @property
    def told(self) -> bool:
        """Whether anything was passed on."""
        return self._told_at_s > float("-inf")

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        at_s = time.monotonic()
        if at_s - self._told_at_s < PROGRESS_INTERVAL_S and done != total:
            return
        self._told_at_s = at_s
        progress = encode(JobProgress(done=done, total=total, note=note[:NOTE_LENGTH_MAX], at_ms=now_ms()))
        key = arq_format.progress_key(self._job_id)
        try:
            self._commands.get().send(("SET", key, progress, "PX", PROGRESS_KEPT_MS))
        except Unavailable:
            # The next one, or the answer, is on its way.
            return


@dataclass(slots=True)
class Attempt:
    """One start of a job. body: the job as it was read; number: counts from 1, killed workers' attempts included."""

    job_id: str
    job: Job
    body: bytes
    number: int
    started_at_ms: int
    progress: Progress
