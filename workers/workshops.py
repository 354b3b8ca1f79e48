"""What each queue's worker process opens and which functions it serves. Only a queue's own modules are loaded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

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
    """needs: services of the hub. functions: `module:attribute` of what returns job functions over that hub."""

    needs: frozenset[str]
    functions: tuple[str, ...]


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
        },
        functions=(
            "workers.market:functions",
            "workers.exports:functions",
            "workers.records:functions",
            "workers.annotations:functions",
            "workers.similarity:functions",
            "workers.topology:functions",
            "workers.housekeeping:functions",
            "workers.probes:database_functions",
            "workers.health_report:database_functions",
        ),
    ),
    "trading": Workshop(needs=_ALWAYS, functions=("workers.probes:trading_functions",)),
    "chain": Workshop(needs=_ALWAYS | {"queue_control"}, functions=("workers.probes:chain_functions",)),
}
assert set(WORKSHOPS) == set(QUEUES), "every queue has its workshop"


def functions_of(queue: str, hub: Hub, settings: Settings) -> list[JobFunction]:
    """Return every function this queue's worker serves."""
    makers: list[Functions] = [resolve(reference) for reference in WORKSHOPS[queue].functions]
    return [function for make in makers for function in make(hub, settings)]
