"""Processes that can be killed, stopped and started again: each in a session of its own, reaped, never left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
KILL_TIMEOUT_S = 10.0
RESTART_PAUSE_S = 0.25


@dataclass
class Child:
    """One process of ours, like a supervisor sees it. ends: how often it ended without being told to."""

    name: str
    arguments: list[str]
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None)
    starts: int = 0
    kills: int = 0
    ends: int = 0
    start_at_s: float = 0.0

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self.arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=REPOSITORY,
                start_new_session=True,
            )
        self.starts += 1

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def send(self, number: signal.Signals, *, group: bool = True) -> None:
        """Signal the process, or all of its session; one that is gone hears nothing."""
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if group else os.kill)(self.process.pid, number)

    def kill(self, *, group: bool = True, down_s: float = 0.0) -> None:
        """kill -9, reap, and note when to start it again."""
        self.send(signal.SIGKILL, group=group)
        if self.process is not None:
            self.process.wait(KILL_TIMEOUT_S)
        self.kills += 1
        self.start_at_s = time.monotonic() + down_s

    def supervise(self) -> None:
        """Start it when it is down and its time has come."""
        if self.alive:
            return
        now_s = time.monotonic()
        if self.process is not None and self.process.returncode != -signal.SIGKILL:
            self.ends += 1
            self.start_at_s = now_s + RESTART_PAUSE_S
            self.process = None
        elif now_s >= self.start_at_s:
            self.start()

    def end(self) -> None:
        """End it for good, whatever state it is in."""
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM, group=False)
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.5)
            # Also what it left of its session.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(KILL_TIMEOUT_S)

    def last_words(self) -> str:
        with contextlib.suppress(OSError):
            return self.log.read_text(errors="replace")[-2_000:]
        return ""
