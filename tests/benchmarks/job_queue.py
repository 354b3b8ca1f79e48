"""Our queue beside stock arq, its peers and a bare Redis stream, on one Valkey: `python -m tests.benchmarks.job_queue`.

In every round each system gets an empty Valkey, a fresh client and a fresh worker process: the worker drains a
backlog, then answers one question at a time, then with 50 in flight. Rounds are interleaved, figures are medians over
them. Last, all workers stand idle at once. Name systems to measure only those.
"""

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import redis

from tests.benchmarks.rig.peer_packages import peers_python
from tests.benchmarks.rig.processes import Silent, Talker, cpu_s, memory_bytes
from tests.engines import PASSWORD, Engine, build_house

ROUNDS = 3
WARM_UP_JOBS = 20
ALONE_JOBS = 1_000
CROWD_JOBS = 8_000
PHASE_S = 2.0
IDLE_S = 12.0
SETTLE_S = 3.0


@dataclass(frozen=True, slots=True)
class System:
    """key: its name on command lines; backlog: jobs it drains in about two seconds."""

    key: str
    name: str
    backlog: int
    peer: bool = False


SYSTEMS = (
    System("floor", "bare Redis stream (the floor)", 8_000),
    System("ours", "tickgate", 6_000),
    System("arq", "arq, as it comes (polls every 0.5 s)", 500),
    System("arq-fast", "arq, polling every 1 ms", 2_000),
    System("saq", "saq, polling every 1 ms", 1_000, peer=True),
    System("taskiq", "taskiq-redis, polling every 1 ms", 2_000, peer=True),
    System("streaq", "streaq", 1_000, peer=True),
    System("rq", "rq, without forking", 500, peer=True),
    System("dramatiq", "dramatiq, 8 threads", 2_000, peer=True),
    System("celery", "celery, solo pool", 1_000, peer=True),
)


@dataclass(slots=True)
class Figures:
    """What the rounds gave, one value each."""

    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    crowd: list[float] = field(default_factory=list)
    drain: list[float] = field(default_factory=list)
    drain_cpu_us: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    idle_percent: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Bench:
    """Where it all runs. peers: the interpreter of theirs."""

    valkey: Engine
    peers: Path | None
    logs: Path

    def start(self, system: System, end: str, backlog: int = 0) -> Talker:
        python = self.peers if system.peer else sys.executable
        module = f"tests.benchmarks.rig.queue_{'peers' if system.peer else 'house'}"
        return Talker(
            [str(python), "-m", module, system.key, end, str(self.valkey.port)],
            {"REDIS_PASSWORD": PASSWORD, "BACKLOG": str(backlog)},
            self.logs / f"{system.key}-{end}.log",
        )

    def empty(self) -> None:
        with redis.Redis(port=self.valkey.port, password=PASSWORD) as connection:
            connection.flushall()

    def valkey_pid(self) -> int:
        assert self.valkey.process is not None
        return self.valkey.process.pid


def measure(bench: Bench, system: System, figures: Figures) -> None:
    """Add one round. Raises: Silent."""
    bench.empty()
    client = bench.start(system, "client")
    worker = None
    try:
        client.hear()
        client.ask("post", system.backlog, 0)
        # Not to the very last: one peer loses some when its worker starts.
        worker = bench.start(system, "worker", system.backlog * 95 // 100)
        drained = worker.hear()
        figures.drain.append(drained["jobs_s"])
        figures.drain_cpu_us.append(drained["cpu_us"])
        client.ask("alone", WARM_UP_JOBS, PHASE_S)
        alone = client.ask("alone", ALONE_JOBS, PHASE_S)
        figures.p50_ms.append(alone["p50_ms"])
        figures.p99_ms.append(alone["p99_ms"])
        pids = (worker.pid, client.pid, bench.valkey_pid())
        before_s = sum(cpu_s(pid) for pid in pids)
        crowd = client.ask("crowd", CROWD_JOBS, PHASE_S)
        figures.cpu_us.append((sum(cpu_s(pid) for pid in pids) - before_s) * 1e6 / crowd["jobs"])
        figures.crowd.append(crowd["rate"])
        figures.memory_mb.append(memory_bytes(worker.pid) / 1e6)
    finally:
        client.kill()
        if worker is not None:
            worker.kill()


def idle(bench: Bench, table: dict[System, Figures]) -> None:
    """Let every worker wait for a job that does not come, all at once."""
    bench.empty()
    workers = {system: bench.start(system, "worker") for system in table}
    try:
        time.sleep(SETTLE_S + len(workers) / 2)
        before_s = {system: cpu_s(worker.pid) for system, worker in workers.items()}
        time.sleep(IDLE_S)
        for system, worker in workers.items():
            table[system].idle_percent.append((cpu_s(worker.pid) - before_s[system]) / IDLE_S * 100)
    finally:
        for worker in workers.values():
            worker.kill()


def show(table: dict[System, Figures]) -> None:
    median = statistics.median
    ours = next(
        (figures for system, figures in table.items() if system.key == "ours" and figures.p50_ms), None
    )
    print(
        f"{'':38}{'p50 ms':>9}{'p99 ms':>9}{'jobs/s':>9}{'drained/s':>11}{'CPU us':>8}{'worker us':>11}"
        f"{'idle %':>8}{'MB':>6}{'p50':>9}{'jobs/s':>9}"
    )
    for system, of in table.items():
        if not of.memory_mb:
            continue
        slower = f"x {median(of.p50_ms) / median(ours.p50_ms):.2f}" if ours else ""
        rate = f"x {median(of.crowd) / median(ours.crowd):.2f}" if ours else ""
        print(
            f"{system.name:38}{median(of.p50_ms):9.2f}{median(of.p99_ms):9.2f}{median(of.crowd):9.0f}"
            f"{median(of.drain):11.0f}{median(of.cpu_us):8.0f}{median(of.drain_cpu_us):11.0f}"
            f"{median(of.idle_percent or [0]):8.2f}{median(of.memory_mb):6.0f}{slower:>9}{rate:>9}"
        )
    print(
        "jobs/s: 50 in flight; drained: a backlog, by one worker process; CPU: all three processes a job, 50 in"
    )
    print(
        "flight; worker: its own a job, draining; the last two columns are a system's figure over tickgate's."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("systems", nargs="*", help=" ".join(system.key for system in SYSTEMS))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    wish = parser.parse_args()
    wanted = [system for system in SYSTEMS if not wish.systems or system.key in wish.systems]
    peers = peers_python() if any(system.peer for system in wanted) else None
    table = {system: Figures() for system in wanted if not system.peer or peers}
    with tempfile.TemporaryDirectory() as directory:
        house = build_house(Path(directory) / "house")
        valkey = house.engines["valkey"]
        valkey.start()
        valkey.wait()
        bench = Bench(valkey, peers, Path(directory))
        try:
            for _ in range(wish.rounds):
                for system, figures in table.items():
                    try:
                        measure(bench, system, figures)
                    except Silent as e:
                        print(f"{system.name}: no figures this round: {e}", flush=True)
            idle(bench, table)
        finally:
            valkey.stop()
    show(table)


if __name__ == "__main__":
    main()
