"""Find and end what a killed supervisor left running. Never touches a foreign process."""

import os
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from core.infrastructure.deployment.layout import Layout
from core.infrastructure.deployment.programs import STOP_SIGNALS, Stage
from core.infrastructure.deployment.supervision import ENTRY
from core.infrastructure.import_manager import resolve

STOP_TIMEOUT_S: Final = 10.0
KILL_TIMEOUT_S: Final = 5.0
POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """A running process of ours. psutil refuses to signal it once its pid belongs to somebody else."""

    name: str
    stage: str
    process: psutil.Process


def find_supervisor(layout: Layout) -> psutil.Process | None:
    """Return the supervisord of this data directory, whether or not it answers."""
    for process in _own_processes():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if ENTRY in words and str(layout.supervisor_config) in words:
            return process
    return None


def find_orphans(layout: Layout) -> list[Orphan]:
    """Return what the supervisor of this data directory once started and still runs.

    supervisord writes its socket's address and the program's name into the environment of what it starts;
    nobody else has that address there, not even a shell whose user set TICKGATE_DATA_DIR.
    """
    address = f"unix://{layout.supervisor_socket}"
    found = []
    for process in _own_processes():
        try:
            environment = process.environ()
        except (psutil.Error, OSError):
            continue
        if environment.get("SUPERVISOR_SERVER_URL") == address:
            found.append(
                Orphan(
                    name=environment.get("SUPERVISOR_PROCESS_NAME", "?"),
                    stage=environment.get("SUPERVISOR_GROUP_NAME", ""),
                    process=process,
                )
            )
    return found + list(_engines(layout, {orphan.process.pid for orphan in found}))


def _engines(layout: Layout, known: set[int]) -> Iterator[Orphan]:
    """Yield engines: their environment is empty, but they live in directories that are ours alone."""
    names = {"postgres": "postgres", "valkey-server": "valkey"}
    for process in _own_processes():
        try:
            name = names.get(process.name())
            if name and process.pid not in known and Path(process.cwd()).is_relative_to(_home(layout, name)):
                yield Orphan(name=name, stage=Stage.ENGINES, process=process)
        except (psutil.Error, OSError):
            continue


def _home(layout: Layout, engine: str) -> Path:
    if engine != "postgres":
        return layout.engine(engine)
    # Root's cluster may have to lie where its unprivileged user can reach it.
    cluster = resolve("core.adapters.embedded.postgres:EmbeddedPostgres")(
        layout.engine("postgres"), 1, "", ""
    )
    return Path(cluster.actual_directory.parent)


def _own_processes() -> Iterator[psutil.Process]:
    """Yield every process but this one and its ancestors."""
    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return (process for process in psutil.process_iter() if process.pid not in spared)


def end_orphans(orphans: Iterable[Orphan]) -> None:
    """Stop them in the order of an orderly stop: connectors, services, engines; kill what does not leave."""
    remaining = list(orphans)
    for stage in reversed(Stage):
        _end([orphan for orphan in remaining if orphan.stage == stage])
    _end([orphan for orphan in remaining if orphan.stage not in set(Stage)])


def _end(orphans: Sequence[Orphan]) -> None:
    for orphan in orphans:
        # SIGINT is PostgreSQL's fast shutdown to the server; its children follow the server.
        _signal(orphan, signal.Signals[f"SIG{STOP_SIGNALS.get(orphan.name, 'TERM')}"])
    survivors = _wait(orphans, STOP_TIMEOUT_S)
    for orphan in survivors:
        _signal(orphan, signal.SIGKILL)
    _wait(survivors, KILL_TIMEOUT_S)


def _signal(orphan: Orphan, number: signal.Signals) -> None:
    try:
        orphan.process.send_signal(number)
    except psutil.Error:
        return  # gone already, which is what we want


def _wait(orphans: Sequence[Orphan], timeout_s: float) -> list[Orphan]:
    deadline = time.monotonic() + timeout_s
    alive = list(orphans)
    while alive and time.monotonic() < deadline:
        alive = [orphan for orphan in alive if _alive(orphan.process)]
        time.sleep(POLL_S if alive else 0)
    return alive


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
