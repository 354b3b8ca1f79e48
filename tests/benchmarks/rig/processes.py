"""Processes under measurement: started with a way to talk to them, their CPU and memory read from the whole tree."""

import json
import os
import queue
import select
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks.rig.driving import MARK

ROOT = Path(__file__).parents[3]
START_TIMEOUT_S = 60.0


class Silent(Exception):
    """A process ended, or did not say in time what was waited for."""


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process and its children have used, user and system, ended children included."""
    tree = psutil.Process(pid)
    total = 0.0
    for process in (tree, *tree.children(recursive=True)):
        times = process.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


def memory_bytes(pid: int) -> int:
    """Return what a process and its children weigh; pages they share count once where the system tells."""
    tree = psutil.Process(pid)
    total = 0
    for process in (tree, *tree.children(recursive=True)):
        weight = process.memory_full_info()
        total += getattr(weight, "pss", weight.rss)
    return total


class Talker:
    """A process that answers lines of standard input with marked lines of JSON."""

    def __init__(self, arguments: list[str], environment: dict[str, str], log: Path) -> None:
        self._said: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._rest = b""
        self._log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                arguments,
                env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def hear(self, timeout_s: float = START_TIMEOUT_S) -> dict[str, Any]:
        """Return the next thing it says. Raises: Silent."""
        assert self.process.stdout is not None
        deadline_s = time.monotonic() + timeout_s
        while self._said.empty():
            left_s = deadline_s - time.monotonic()
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, left_s))
            read = os.read(self.process.stdout.fileno(), 65_536) if ready else b""
            if not read:
                last = self._log.read_text(errors="replace")[-300:].replace("\n", " ")
                raise Silent(f"nothing said within {timeout_s:g} s or it ended: {last}")
            *lines, self._rest = (self._rest + read).split(b"\n")
            for line in lines:
                if line.startswith(MARK.encode()):
                    self._said.put(json.loads(line[len(MARK) :]))
        return self._said.get()

    def ask(self, *words: object, timeout_s: float = START_TIMEOUT_S) -> dict[str, Any]:
        """Return its answer to a line. Raises: Silent."""
        assert self.process.stdin is not None
        self.process.stdin.write((" ".join(str(word) for word in words) + "\n").encode())
        self.process.stdin.flush()
        return self.hear(timeout_s)

    def kill(self) -> None:
        for process in psutil.Process(self.pid).children(recursive=True):
            process.kill()
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
