"""Ask a dead letter's job again: the ledger notes it, and the queue has it, or neither."""

from typing import Final

from core.errors.exceptions import Conflict
from core.messages.dead_letters import DeadLetter
from core.messages.jobs import JOBS
from core.ports.jobs import DeadLetters, QueueControl

REPLAY_PREFIX: Final = "dead."


async def replay(
    letters: DeadLetters, control: QueueControl, letter_id: str, tenant: str | None
) -> DeadLetter:
    """Put the job into its queue again and return the letter, which names the new job.

    A ledger that fails after the queue has taken the job leaves the letter dead; replayed then, it is the same job.
    tenant: None for the operator, who may replay everybody's.

    Raises:
        NotFound: no such letter. Conflict: it has been replayed, or nobody would have its answer.
        Corrupt: its job cannot be read. Unavailable.
    """

    async def put(letter: DeadLetter) -> str:
        kind = JOBS.get(letter.function)
        if kind is not None and not kind.replayable:
            raise Conflict("whoever asked for it has gone; ask for it anew", code="NOT_REPLAYABLE")
        job_id = REPLAY_PREFIX + letter.id
        await control.put(job_id, letter.queue, letter.job)
        return job_id

    return await letters.replay(letter_id, tenant, put)
