"""Stop a local deployment in order, whatever state it is in."""

import contextlib
import signal
import time
from collections.abc import Callable
from typing import Final

import psutil

from core.errors.exceptions import TickgateError, Unavailable
from core.infrastructure.deployment.layout import Layout
from core.infrastructure.deployment.orphans import end_orphans, find_orphans, find_supervisor
from core.infrastructure.deployment.supervision import Supervisor

STOP_TIMEOUT_S: Final = 60.0
POLL_S: Final = 0.05
STOPPED_STATES: Final = frozenset({"STOPPED", "EXITED", "FATAL", "BACKOFF"})

Say = Callable[[str], None]


def stop(layout: Layout, say: Say) -> bool:
    """Stop connectors, then services, then engines; return whether anything ran. Safe to repeat."""
    supervisor = find_supervisor(layout)
    if supervisor is not None:
        _stop_supervisor(layout, supervisor, say)
    orphans = find_orphans(layout)
    if orphans:
        names = ", ".join(sorted({orphan.name for orphan in orphans}))
        say(f"ending what was left without a supervisor: {names}")
        end_orphans(orphans)
    layout.supervisor_socket.unlink(missing_ok=True)
    if layout.supervisor_socket.parent != layout.run:
        with contextlib.suppress(OSError):
            layout.supervisor_socket.parent.rmdir()
    (layout.run / "supervisord.pid").unlink(missing_ok=True)
    return supervisor is not None or bool(orphans)


def _stop_supervisor(layout: Layout, process: psutil.Process, say: Say) -> None:
    with contextlib.suppress(psutil.Error):
        process.send_signal(signal.SIGTERM)
    rpc = Supervisor(layout.supervisor_socket)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    said: set[str] = set()
    while _alive(process) and time.monotonic() < deadline:
        _say_stopped(rpc, said, say)
        time.sleep(POLL_S)
    if _alive(process):
        say(f"the supervisor did not stop within {STOP_TIMEOUT_S:g} s; it is killed")
        with contextlib.suppress(psutil.Error):
            process.kill()
            process.wait(5.0)


def _say_stopped(rpc: Supervisor, said: set[str], say: Say) -> None:
    """Say which programs have stopped since the last look. Asking wakes supervisord from its sleep."""
    try:
        states = rpc.states()
    except Unavailable:
        return
    for name, state in states.items():
        if state.state in STOPPED_STATES and name not in said:
            said.add(name)
            say(f"{name} stopped")


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def stop_quietly(layout: Layout) -> None:
    """Stop after a failed start, where the first error is the one to report."""
    with contextlib.suppress(TickgateError, OSError):
        stop(layout, lambda _: None)
