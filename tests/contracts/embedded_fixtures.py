"""Starts the embedded engines as processes of their own, on free ports and directories that vanish."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.engines import free_port

PASSWORD = "a 'quoted\" pass\\word"
READY_SECONDS_MAX = 30.0

_POSTGRES = """
import sys
from pathlib import Path
from core.adapters.embedded.postgres import EmbeddedPostgres
engine = EmbeddedPostgres(Path(sys.argv[1]), int(sys.argv[2]), "tickgate", sys.argv[3])
engine.prepare()
engine.exec()
"""
_VALKEY = """
import sys
from pathlib import Path
from core.adapters.embedded.valkey import EmbeddedValkey
engine = EmbeddedValkey(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
engine.prepare()
engine.exec()
"""
_CLICKHOUSE = """
import sys
from pathlib import Path
from core.adapters.embedded.clickhouse_http import serve
from core.errors.exceptions import TickgateError
try:
    serve(directory=Path(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), user="tickgate",
          password=sys.argv[3], memory_bytes_max=2 * 1024**3)
except TickgateError as error:
    raise SystemExit(str(error))
"""
PROGRAMS = {"postgres": _POSTGRES, "valkey": _VALKEY, "clickhouse": _CLICKHOUSE}


@dataclass
class EngineProcess:
    """One engine; `start` returns when it listens."""

    product: str
    directory: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> "EngineProcess":
        self.port = self.port or free_port()
        self.process = launch(self.product, self.directory, self.port)
        deadline = time.monotonic() + READY_SECONDS_MAX
        while not _listens(self.port):
            assert self.process.poll() is None, f"{self.product} ended with {self.process.returncode}"
            assert time.monotonic() < deadline, f"{self.product} is not ready"
            time.sleep(0.01)
        return self

    def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(READY_SECONDS_MAX)


def launch(product: str, directory: Path, port: int, **options: object) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", PROGRAMS[product], str(directory), str(port), PASSWORD]
    return subprocess.Popen(command, **options)  # type: ignore[call-overload,no-any-return]


@contextlib.contextmanager
def running(product: str, directory: Path) -> Iterator[EngineProcess]:
    engine = EngineProcess(product, directory).start()
    try:
        yield engine
    finally:
        if engine.process is not None and engine.process.poll() is None:
            engine.end(signal.SIGINT if product == "postgres" else signal.SIGTERM)


@contextlib.contextmanager
def open_directory() -> Iterator[Path]:
    """A directory any user can reach, in memory where possible: tests measure engines, not disks."""
    base = "/dev/shm" if os.path.isdir("/dev/shm") else None
    path = Path(tempfile.mkdtemp(prefix="tickgate-test-", dir=base))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
