"""What tests and benchmarks of exports share: ticks by the million, peaks of memory, readers of every pace."""

import itertools
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from core.adapters.clickhouse.client import connect
from core.settings import Settings
from tests.gateways import DAY_MS, TICK_COLUMNS, FrontDoor

STEP_MS = 20


async def generate(settings: Settings, symbol: str, rows: int, **columns: str) -> None:
    """Let the store make ticks by itself. columns: what differs, in SQL over `number`."""
    written = {
        "source": "'demo'",
        "epoch": "1",
        "seq": "number + 1",
        "symbol": f"'{symbol}'",
        "time": "intDiv(time_msc, 1000)",
        "time_msc": f"{DAY_MS} + number * {STEP_MS}",
        "bid": "1.1 + (number % 9973) / 100000",
        "ask": "bid + 0.00012",
        "last": "0",
        "volume": "0",
        "volume_real": "0",
        "flags": "6",
        "quarantine": "'OK'",
        "backfill": "0",
        "utc_offset_s": "7200",
        "captured_at_ms": "time_msc + 5",
        **columns,
    }
    select = ", ".join(f"{written[name]} as {name}" for name in TICK_COLUMNS)
    client = await connect(settings.clickhouse, settings.clickhouse.database)
    try:
        await client.command(f"insert into ticks select {select} from numbers({rows})")
    finally:
        await client.close()


class Peaks:
    """The most memory each process held while this ran."""

    def __init__(self, **pids: int) -> None:
        self._processes = {name: _tree(pid) for name, pid in pids.items()}
        self.bytes: dict[str, int] = {}

    def __enter__(self) -> "Peaks":
        for processes in self._processes.values():
            for pid in processes:
                Path(f"/proc/{pid}/clear_refs").write_text("5")
        return self

    def __exit__(self, *_: object) -> None:
        self.bytes = {name: max(map(_peak, pids)) for name, pids in self._processes.items()}


def _tree(pid: int) -> list[int]:
    process = psutil.Process(pid)
    return [pid, *(child.pid for child in process.children(recursive=True))]


def _peak(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1_024
    raise AssertionError(f"{pid} shows no peak")


@contextmanager
def begun(http: httpx.Client, url: str) -> Iterator[tuple[float, Iterator[bytes]]]:
    """Ask, and give how long the first byte took, and everything."""
    started_s = time.monotonic()
    with http.stream("GET", url) as answer:
        assert answer.status_code == 200, answer.read()
        parts = answer.iter_raw()
        first = next(parts)
        yield time.monotonic() - started_s, itertools.chain([first], parts)


class Reader:
    """Reads an answer from a raw socket, as slowly as a test wants."""

    def __init__(self, door: FrontDoor, path: str) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        self._socket.settimeout(30)
        self._socket.connect(("127.0.0.1", door.settings.gateway.port))
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {door.token()}\r\n\r\n"
        self._socket.sendall(head.encode())
        assert self._socket.recv(15) == b"HTTP/1.1 200 OK"

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def take(self, size: int) -> int:
        """Read `size` bytes, or what there is of them."""
        taken = 0
        while taken < size and (part := self._socket.recv(min(65_536, size - taken))):
            taken += len(part)
        return taken


def measured(door: FrontDoor, name: str) -> float:
    """Return the sum of one of the worker's metrics."""
    answer = httpx.get(f"http://127.0.0.1:{door.settings.worker.health_port}/metrics", timeout=5)
    return sum(float(line.rpartition(" ")[2]) for line in answer.text.splitlines() if line.startswith(name))
