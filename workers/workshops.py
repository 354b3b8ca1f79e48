"""What each queue's worker process opens and which functions it serves. Only a queue's own modules are loaded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from core.infrastructure.central_hub import Hub
from core.infrastructure.import_manager import resolve
from core.model.records import SHELVES
from core.ports.jobs import JobFunction
from core.settings import Settings
from workers.queues import QUEUES

Functions = Callable[[Hub, Settings], Sequence[JobFunction]]

_ALWAYS: Final = frozenset({"job_queue", "job_runner", "redis"})
"""Through `redis` the hub sees to it that the keys of the queue are laid out as this version knows them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """needs: services of the hub. functions: `module:attribute` of what returns job functions over that hub.

    rounds: `module:attribute` of what returns, over that hub, the work that goes on without being asked.
    """

    needs: frozenset[str]
    functions: tuple[str, ...]
    rounds: str = ""


WORKSHOPS: Final[Mapping[str, Workshop]] = {
    "database": Workshop(
        needs=_ALWAYS
        | {shelf.keeper for shelf in SHELVES.values()}
        | {
            "postgres",
            "clickhouse",
            "tick_reader",
            "tick_changes",
            "tick_pages",
            "bar_pages",
            "cache",
            "answer_streams",
            "sources",
            "latest_quotes",
            "certifier",
            "retention",
            "queue_control",
            "dead_letters",
            "idempotency",
            "grants",
            "trading_reads",
            "audit_archive",
        },
        functions=(
            "workers.market:functions",
            "workers.exports:functions",
            "workers.records:functions",
            "workers.annotations:functions",
            "workers.similarity:functions",
            "workers.topology:functions",
            "workers.trading_reads:functions",
            "workers.housekeeping:functions",
            "workers.auditing:functions",
            "workers.probes:database_functions",
            "workers.health_report:database_functions",
        ),
    ),
    "trading": Workshop(
        needs=_ALWAYS
        | {"order_ledger", "risk_book", "audit", "trail_news", "latest_quotes", "paper_venue", "mt5_venue"},
        functions=("workers.probes:trading_functions", "workers.orders:functions"),
        rounds="workers.trading_rounds:rounds",
    ),
    "chain": Workshop(needs=_ALWAYS | {"queue_control"}, functions=("workers.probes:chain_functions",)),
}
assert set(WORKSHOPS) == set(QUEUES), "every queue has its workshop"


class Rounds(Protocol):
    """Work that goes on until it is cancelled. unready: why the worker is not ready yet, or nothing."""

    async def run(self) -> None:
        """Go on until cancelled."""

    def unready(self) -> str:
        """Say what is still to be done before anybody may count on the worker."""


def rounds_of(queue: str, hub: Hub, settings: Settings) -> Rounds | None:
    """Return what this queue's worker does without being asked."""
    reference = WORKSHOPS[queue].rounds
    if not reference:
        return None
    make: Callable[[Hub, Settings], Rounds] = resolve(reference)
    return make(hub, settings)


def functions_of(queue: str, hub: Hub, settings: Settings) -> list[JobFunction]:
    """Return every function this queue's worker serves."""
    makers: list[Functions] = [resolve(reference) for reference in WORKSHOPS[queue].functions]
    return [function for make in makers for function in make(hub, settings)]
