"""How a queue stands at one moment."""

from core.messages.message import Message


class QueueStanding(Message, frozen=True, kw_only=True):
    """depth: jobs asked and not ended. oldest_age_s: of those, the one due for the longest; None when none is due.

    dead_letters_waiting: on their way to the ledger; more than a handful for long means the ledger is away.
    """

    name: str
    depth: int
    oldest_age_s: float | None
    in_progress: int
    workers_alive: int
    dead_letters_waiting: int
