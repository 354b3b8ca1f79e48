"""The gateway and the worker as processes: what they load, what they survive, and that they leave nothing behind."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from tests import gateways
from tests.engines import House, free_port, listens, wait_for
from tests.gateways import DAY_MS, FrontDoor, Process, tick

FORBIDDEN = (
    "numpy",
    "clickhouse_connect",
    "chdb",
    "weaviate",
    "arango",
    "pyarrow",
    "pandas",
    "workers",
    "bridge",
)
TICKS = "/v1/ticks?symbol=EURUSD"
ASKERS = 8
PROBES = 200
LIVEZ_S_MAX = 0.05


@pytest.fixture(scope="module")
def door(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    root = tmp_path_factory.mktemp("process")
    rows = [tick(1, DAY_MS, 1.1, 1.2)]
    with gateways.running(gateways.build(root, house, redis_database=5), rows) as door:
        yield door


@contextlib.contextmanager
def stopped(house: House, name: str) -> Iterator[None]:
    """An engine that is there and answers nothing."""
    engine = house.engines[name]
    engine.send(signal.SIGSTOP)
    try:
        yield
    finally:
        engine.send(signal.SIGCONT)


def test_the_gateway_loads_no_store_but_its_own(door: FrontDoor) -> None:
    program = f"""
import asyncio, sys
from gateway.app import build_app
from core.infrastructure.config_manager import load_settings
async def main():
    app = build_app(load_settings())
    async with app.router.lifespan_context(app):
        print("loaded:" + ",".join(name for name in {FORBIDDEN!r} if name in sys.modules))
asyncio.run(main())
"""
    found = subprocess.run(
        [sys.executable, "-c", program],
        env=door.gateway.environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "loaded:\n" in found.stdout, found.stdout


def test_livez_answers_at_once_while_redis_does_not_and_others_ask(door: FrontDoor, house: House) -> None:
    token, over = door.token(), threading.Event()

    def keep_asking() -> set[int]:
        with door.client() as http:
            http.headers["Authorization"] = f"Bearer {token}"
            return {http.get(TICKS).status_code for _ in iter(over.is_set, True)}

    with ThreadPoolExecutor(ASKERS) as pool, door.client() as http:
        try:
            with stopped(house, "valkey"):
                asking = [pool.submit(keep_asking) for _ in range(ASKERS)]
                spans_s = sorted(_span_s(http, "/livez") for _ in range(PROBES))
                answer = http.get("/readyz")
                assert (answer.status_code, "redis" in answer.json()["problems"]) == (503, True)
                over.set()
                assert set().union(*(one.result() for one in asking)) <= {429, 503}
        finally:
            over.set()
    # The machine's own hiccups are allowed a few of them; a loop that is blocked would show in most.
    assert spans_s[PROBES * 95 // 100] < LIVEZ_S_MAX, spans_s[-10:]
    wait_for(door.ready, "the gateway being ready again", 15)


def _span_s(http: httpx.Client, path: str) -> float:
    started_s = time.perf_counter()
    assert http.get(path).status_code == 200
    return time.perf_counter() - started_s


def test_a_read_is_refused_for_now_while_redis_does_not_answer(door: FrontDoor, house: House) -> None:
    with door.signed_in() as http:
        with stopped(house, "valkey"):
            answer = http.get(TICKS)
            assert (answer.status_code, answer.json()["code"]) == (503, "QUEUE_UNAVAILABLE")
            assert answer.headers["retry-after"] == "1"
        wait_for(lambda: http.get(TICKS).status_code == 200, "reads being answered again", 15)


def test_a_read_is_refused_for_now_while_the_tick_store_does_not_answer(
    door: FrontDoor, house: House
) -> None:
    with door.signed_in() as http:
        with stopped(house, "clickhouse"):
            assert http.get(TICKS, headers={"Prefer": "wait=1"}).status_code == 202
        wait_for(lambda: http.get(TICKS).status_code == 200, "reads being answered again", 15)


def test_a_killed_worker_is_missed_and_its_successor_takes_over(door: FrontDoor) -> None:
    with door.signed_in() as http:
        door.worker.stop(signal.SIGKILL)
        answer = http.get(TICKS, headers={"Prefer": "wait=0"})
        assert answer.status_code == 202
        door.worker.start()
        wait_for(lambda: http.get(answer.headers["location"]).json()["status"] == "finished", "the job", 20)
    wait_for(door.ready, "the gateway being ready again", 15)


def test_a_killed_server_process_is_replaced(door: FrontDoor) -> None:
    (child,) = [one for one in psutil.Process(door.gateway.pid).children() if _serves(one)]
    child.kill()
    wait_for(
        lambda: [one for one in psutil.Process(door.gateway.pid).children() if _serves(one) and one != child],
        "a new server process",
        15,
    )
    wait_for(door.ready, "the gateway being ready again", 15)


def _serves(process: psutil.Process) -> bool:
    # multiprocessing's resource tracker is a child, too.
    try:
        return not any("resource_tracker" in part for part in process.cmdline())
    except psutil.Error:  # it is gone, or a zombie that waits for its parent
        return False


def test_a_killed_gateway_leaves_no_orphan(door: FrontDoor) -> None:
    environment = door.gateway.environment
    own_port = free_port()
    gateway = Process(
        ["gateway"], {**environment, "TICKGATE_GATEWAY_PORT": str(own_port)}, door.root / "orphan.log"
    )
    gateway.start()
    wait_for(lambda: gateway.check() or listens(own_port), "the second gateway")
    children = psutil.Process(gateway.pid).children(recursive=True)
    assert children
    gateway.stop(signal.SIGKILL)
    _gone, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
    assert not listens(own_port)


def test_a_body_that_does_not_come_is_not_waited_for(door: FrontDoor) -> None:
    with socket.create_connection(("127.0.0.1", door.settings.gateway.port), timeout=15) as raw:
        raw.sendall(b"POST /oauth/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\ngrant")
        answer = raw.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 408 "), answer


@pytest.mark.parametrize("program", [["gateway"], ["workers", "database"]])
def test_told_to_stop_it_stops_in_order(door: FrontDoor, program: list[str]) -> None:
    environment = {
        **door.gateway.environment,
        "TICKGATE_GATEWAY_PORT": str(free_port()),
        "TICKGATE_WORKER_HEALTH_PORT": str(free_port()),
    }
    process = Process(program, environment, door.root / "stopping.log")
    process.start()
    port = int(
        environment["TICKGATE_GATEWAY_PORT" if program == ["gateway"] else "TICKGATE_WORKER_HEALTH_PORT"]
    )
    wait_for(lambda: process.check() or listens(port), "the process")
    assert process.stop() == 0


def test_a_worker_that_waits_for_its_stores_can_be_stopped(door: FrontDoor) -> None:
    environment = {**door.gateway.environment, "TICKGATE_POSTGRES_PORT": str(free_port())}
    process = Process(["workers", "database"], environment, door.root / "waiting.log")
    process.start()
    wait_for(lambda: process.check() or b"SIGTERM" in _caught(process.pid), "the signal being handled", 20)
    assert process.stop() == 0


def _caught(pid: int) -> bytes:
    """Say SIGTERM when the process has a handler for it. Source: proc(5), SigCgt."""
    mask = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "SigCgt" in line)
    return b"SIGTERM" if int(mask.split()[1], 16) >> (signal.SIGTERM - 1) & 1 else b""


def test_without_a_signing_key_it_does_not_start_and_says_why(door: FrontDoor, tmp_path: Path) -> None:
    environment = {**door.gateway.environment, "TICKGATE_AUTH_KEY_FILE": str(tmp_path / "missing.json")}
    found = subprocess.run(
        [sys.executable, "-m", "gateway"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert found.returncode == 1
    assert found.stderr.startswith("error: BAD_SIGNING_KEY"), found.stderr


def test_a_workers_health_and_metrics_are_served(door: FrontDoor) -> None:
    url = f"http://127.0.0.1:{door.settings.worker.port_of('database')}"
    assert httpx.get(f"{url}/livez").status_code == 200
    assert httpx.get(f"{url}/readyz").json() == {"ready": True, "problem": ""}
    assert "tickgate_jobs_done_total" in httpx.get(f"{url}/metrics").text
    assert os.getpid() != door.worker.pid
