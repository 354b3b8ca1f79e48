"""The workers of the trading and chain queues as processes: one settings file, probes, samples, next to no CPU."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from core.infrastructure.config_manager import write_settings_file
from core.settings import WorkerSettings
from tests.engines import PASSWORD, House, free_port, new_databases, wait_for

IDLE_S = 5.0
IDLE_CPU_MAX = 0.02


@dataclass
class Workers:
    """By queue: its process and where it answers for its health."""

    processes: dict[str, subprocess.Popen[bytes]]
    ports: dict[str, int]

    def get(self, queue: str, path: str) -> httpx.Response | None:
        try:
            return httpx.get(f"http://127.0.0.1:{self.ports[queue]}{path}", timeout=5)
        except httpx.HTTPError:
            return None

    def measured(self, queue: str, name: str, of: str) -> float:
        answer = self.get(queue, "/metrics")
        assert answer is not None
        for family in text_string_to_metric_families(answer.text):
            for sample in family.samples:
                if sample.name == name and sample.labels.get("queue") == of:
                    return sample.value
        return 0.0


@pytest.fixture(scope="module")
def workers(queue_house: House, house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    ports = {queue: free_port() for queue in ("trading", "chain")}
    settings = tmp_path_factory.mktemp("workers") / "settings.json"
    redis = {"port": queue_house.settings.redis.port, "password": PASSWORD}
    worker = {f"{queue}_port": port for queue, port in ports.items()}
    ledger = new_databases(house).postgres
    postgres = {"port": ledger.port, "database": ledger.database, "password": PASSWORD}
    write_settings_file(settings, {"redis": redis, "postgres": postgres, "worker": worker})
    processes = {
        queue: subprocess.Popen(
            [sys.executable, "-m", "workers", queue],
            env={**os.environ, "TICKGATE_SETTINGS_FILE": str(settings)},
            cwd=Path(__file__).parents[2],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for queue in ports
    }
    yield Workers(processes, ports)
    for process in processes.values():
        process.kill()
        process.wait()


def test_every_worker_is_ready_on_its_own_port(workers: Workers) -> None:
    for queue in workers.ports:

        def ready(queue: str = queue) -> bool:
            answer = workers.get(queue, "/readyz")
            return answer is not None and answer.status_code == 200

        wait_for(ready, f"the {queue} worker being ready", 20)


def test_every_queue_is_probed_and_one_without_workers_is_noticed(workers: Workers) -> None:
    def probed() -> bool:
        return (
            workers.measured("chain", "tickgate_queue_probe_seconds_count", "trading") >= 1
            and workers.measured("chain", "tickgate_queue_probe_seconds_count", "chain") >= 1
            and workers.measured("chain", "tickgate_queue_probes_failed_total", "database") >= 1
        )

    wait_for(probed, "a round of probes", 30)


def test_how_queues_stand_is_sampled(workers: Workers) -> None:
    def sampled() -> bool:
        return workers.measured("chain", "tickgate_queue_workers", "trading") == 1

    wait_for(sampled, "a sample", 30)


def test_an_idle_worker_uses_next_to_no_cpu(workers: Workers) -> None:
    process = psutil.Process(workers.processes["trading"].pid)
    before = sum(process.cpu_times()[:2])
    time.sleep(IDLE_S)
    assert (sum(process.cpu_times()[:2]) - before) / IDLE_S < IDLE_CPU_MAX


def test_told_to_stop_it_ends_well_and_is_counted_no_longer(workers: Workers) -> None:
    workers.processes["trading"].send_signal(signal.SIGTERM)
    assert workers.processes["trading"].wait(10) == 0

    def gone() -> bool:
        return workers.measured("chain", "tickgate_queue_workers", "trading") == 0

    wait_for(gone, "the next sample", 30)


def test_a_settings_file_serves_every_worker() -> None:
    shared = WorkerSettings()
    assert [shared.port_of(queue) for queue in ("trading", "database", "chain")] == [8_007, 8_008, 8_009]
    own = msgspec.structs.replace(shared, health_port=9_000)
    assert {own.port_of(queue) for queue in ("trading", "database")} == {9_000}
