"""What runs of a deployment right now, and whether all of it is well."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from core.errors.exceptions import Unavailable
from core.infrastructure.deployment.belongings import read_tree
from core.infrastructure.deployment.layout import Layout
from core.infrastructure.deployment.orphans import find_orphans
from core.infrastructure.deployment.programs import Program
from core.infrastructure.deployment.readiness import probe, store_reports
from core.infrastructure.deployment.supervision import Supervisor
from core.infrastructure.deployment.wish import programs_of, recall

RUNNING: Final = "RUNNING"
STOPPED: Final = "STOPPED"
ORPHANED: Final = "ORPHANED"
"""It runs, and nobody supervises it: its supervisor was killed."""
NOT_READY: Final = "NOT_READY"
OBSERVER: Final = "worker-database"
ALIVE: Final = frozenset({RUNNING, "STARTING"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessReport:
    """One line of `tickgate status`. problem: in words, empty when all is well."""

    name: str
    pid: int | None
    port: int | None
    state: str
    problem: str = ""


def known_programs(layout: Layout) -> list[Program]:
    """Return the programs of the last `up`, none when there was none."""
    wish = recall(layout)
    return programs_of(layout, read_tree(layout.settings_file), wish) if wish else []


def report(layout: Layout) -> list[ProcessReport]:
    """Look at every program once: is it alive, and does it answer?"""
    programs = known_programs(layout)
    if not programs:
        return []
    try:
        return _supervised(layout, programs)
    except Unavailable:
        return _unsupervised(layout, programs)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLine:
    """One store as the database worker sees it. keeper: its version, or what stands in."""

    name: str
    keeper: str
    state: str
    latency_ms: float | None
    problem: str = ""


def stores(layout: Layout) -> list[StoreLine]:
    """Ask the database worker how its stores stand, nothing while it does not answer."""
    workers = [program for program in known_programs(layout) if program.name == OBSERVER]
    reports = [report for worker in workers for report in store_reports(worker)]
    return [
        StoreLine(
            name=report["store"],
            keeper=report["stand_in"] or report["version"],
            state="HEALTHY" if report["state"] == "pass" else "FAILING",
            latency_ms=report["latency_ms"],
            problem=report["error"],
        )
        for report in reports
    ]


def _supervised(layout: Layout, programs: Sequence[Program]) -> list[ProcessReport]:
    states = Supervisor(layout.supervisor_socket).states()
    reports = []
    for program in programs:
        found = states.get(program.name)
        state, problem = (found.state, found.problem) if found else (STOPPED, "")
        if state in ALIVE:
            finding = probe(program)
            # A replay is well while it still has rows to deliver.
            well = finding.ready or (program.drains and finding.rows > 0)
            state, problem = (RUNNING, "") if well else (NOT_READY, finding.problem)
        pid = found.pid if found else None
        reports.append(
            ProcessReport(name=program.name, pid=pid, port=program.port, state=state, problem=problem)
        )
    return reports


def _unsupervised(layout: Layout, programs: Sequence[Program]) -> list[ProcessReport]:
    left: dict[str, int] = {}
    for orphan in find_orphans(layout):
        left.setdefault(orphan.name, orphan.process.pid)
    return [
        ProcessReport(
            name=program.name,
            pid=left.get(program.name),
            port=program.port,
            state=ORPHANED if program.name in left else STOPPED,
            problem="its supervisor is gone; `tickgate up` starts afresh" if program.name in left else "",
        )
        for program in programs
    ]
