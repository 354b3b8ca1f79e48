"""What a gateway request costs beside a bare server and beside the usual stack: `python -m tests.benchmarks.gateway`.

All serve at once, one process each; short bursts go round them, and a ratio is the median of ratios within a round.
The route is a benchmark's own (rig/gateway_apps.py): no route of ours authenticates without asking a store or a worker.
"""

import argparse
import atexit
import json
import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.benchmarks.rig.gateway_apps import PATH
from tests.benchmarks.rig.load import UNLIMITED, Burst, Request, burst, describe
from tests.benchmarks.rig.peer_packages import peers_python
from tests.benchmarks.rig.processes import ROOT, cpu_s, memory_bytes
from tests.engines import PASSWORD, free_port, listens, running_house, wait_for
from tests.gateways import FrontDoor, Process, build, gateway_alone

ROUNDS = 10
BURST_S = 1.0
CONNECTIONS = 32
REDIS_DATABASE = 1
WISH = {
    "client_order_id": "01JD2Q8ZB3K5N7P9R1S3T5V7W9",
    "account": "demo-0001",
    "symbol": "EURUSD",
    "side": "BUY",
    "type": "LIMIT",
    "volume": 0.25,
    "price": 1.08421,
    "stop_loss": 1.08121,
    "take_profit": 1.09021,
    "comment": "mean reversion 17",
}


@dataclass(slots=True)
class Server:
    name: str
    pid: int
    request: Request
    bursts: list[Burst] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)

    def measure(self) -> None:
        before_s = cpu_s(self.pid)
        done = burst(self.request, CONNECTIONS, BURST_S)
        self.cpu_us.append((cpu_s(self.pid) - before_s) * 1e6 / max(1, done.answers))
        self.bursts.append(done)


def measured(port: int, token: str) -> Request:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    return Request(port, "POST", PATH, headers, json.dumps(WISH).encode())


def application(door: FrontDoor, name: str, port: int) -> Process:
    environment = {**door.gateway.environment, **UNLIMITED, "TICKGATE_GATEWAY_PORT": str(port)}
    return Process(["tests.benchmarks.rig.gateway_apps", name], environment, door.root / f"{name}.log")


@contextmanager
def fastapi_stack(door: FrontDoor, python: Path, port: int) -> Iterator[int]:
    redis, auth = door.settings.redis, door.settings.auth
    environment = {
        "PYTHONPATH": str(ROOT),
        "JWKS_FILE": auth.jwks_file,
        "ISSUER": auth.issuer,
        "AUDIENCE": auth.audience,
        "REDIS_URL": f"redis://:{PASSWORD}@127.0.0.1:{redis.port}/{REDIS_DATABASE}",
    }
    serve = [
        "-m",
        "uvicorn",
        "tests.benchmarks.rig.fastapi_stack:app",
        "--port",
        str(port),
        "--no-access-log",
    ]
    with (door.root / "fastapi.log").open("ab") as log:
        process = subprocess.Popen(
            [python, *serve, "--loop", "uvloop", "--http", "httptools", "--log-level", "warning"],
            env={**os.environ, **environment},
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
    try:
        wait_for(lambda: listens(port), "the FastAPI stack listening")
        yield process.pid
    finally:
        process.kill()
        process.wait()


def show(servers: list[Server]) -> None:
    ours = servers[0]
    width = max(len(server.name) for server in servers) + 2
    print(
        f"{'':{width}}{'req/s':>8}{'p50 ms':>8}{'p99 ms':>8}{'CPU us':>8}{'CPU':>9}{'req/s':>9}{'MB':>6}{'bad':>5}"
    )
    for server in servers:
        median: Any = statistics.median
        cpu = median([mine / other for mine, other in zip(ours.cpu_us, server.cpu_us, strict=True)])
        pairs = zip(ours.bursts, server.bursts, strict=True)
        rate = median([mine.rate / other.rate for mine, other in pairs])
        print(
            f"{server.name:{width}}{median(one.rate for one in server.bursts):8.0f}"
            f"{median(one.p50_ms for one in server.bursts):8.2f}{median(one.p99_ms for one in server.bursts):8.2f}"
            f"{median(server.cpu_us):8.1f}{f'x {cpu:.2f}':>9}{f'x {rate:.2f}':>9}"
            f"{memory_bytes(server.pid) / 1e6:6.0f}{sum(one.bad for one in server.bursts):5}"
        )
    print("CPU, req/s: tickgate's over that row's, the median of same-round ratios;")
    print(f"{CONNECTIONS} connections, bursts of {BURST_S:g} s by {describe()}.")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    python = peers_python()
    root = Path(tempfile.mkdtemp(prefix="tickgate-bench-"))
    root.chmod(0o711)
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    with running_house(root / "house") as house, gateway_alone(build(root / "door", house)) as door:
        token = door.token()
        ports = {name: free_port() for name in ("gateway", "plain", "fastapi")}
        ours, plain = (application(door, name, ports[name]) for name in ("gateway", "plain"))
        ours.start()
        plain.start()
        try:
            for process, name in ((ours, "gateway"), (plain, "plain")):
                wait_for(lambda process=process, name=name: process.check() or listens(ports[name]), name)
            servers = [
                Server("tickgate: token, scope, limit, body", ours.pid, measured(ports["gateway"], token)),
                Server("granian + starlette: body", plain.pid, measured(ports["plain"], token)),
            ]
            if python is None:
                race(servers, rounds)
            else:
                with fastapi_stack(door, python, ports["fastapi"]) as pid:
                    name = "FastAPI + slowapi + PyJWT + pydantic"
                    race([*servers, Server(name, pid, measured(ports["fastapi"], token))], rounds)
        finally:
            ours.stop()
            plain.stop()


def race(servers: list[Server], rounds: int) -> None:
    for server in servers:
        of = server.request
        answer = httpx.post(f"http://127.0.0.1:{of.port}{of.target}", headers=of.headers, content=of.body)
        assert answer.status_code == 200, f"{server.name}: {answer.text}"
        server.measure()
        server.bursts.clear()
        server.cpu_us.clear()
    for _ in range(rounds):
        for server in servers:
            server.measure()
        silent = [server.name for server in servers if not server.bursts[-1].answers]
        if silent:
            # Its store stood still, say; a ratio to nothing means nothing.
            print(f"a round is left out: no answer from {', '.join(silent)}", flush=True)
            for server in servers:
                server.bursts.pop()
                server.cpu_us.pop()
    show(servers)


if __name__ == "__main__":
    main()
