"""A whole tick path on real processes under load, the faults that are done to it, and the judge.

`World.finish` heals everything, lets the tape end, waits until the connector has drained, and compares what the store
holds with the tape, byte for byte. What it returns are violations in words; an honest product gives none.
"""

import asyncio
import contextlib
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from core.errors.exceptions import Unavailable
from core.infrastructure.central_hub import open_hub
from core.market.completeness import certify
from core.messages.certificates import Certificate
from core.messages.jobs import Answer, SymbolQuery
from core.settings import Settings
from tests.bridges import SOURCE, TENANT, TOKEN, build_bridge, http_status
from tests.engines import House, free_port, wait_for
from tests.faults.processes import REPOSITORY, Child
from tests.faults.proxy import Proxy
from tests.faults.tape import SYMBOLS, Tape, quarantine

HEAL_TIMEOUT_S = 30.0
TALLY_TIMEOUT_S = 4.0
ANSWER_TIMEOUT_MS = 20_000
ROWS_MAX = 1_000_000
INSERT_BYTES = 20_000
STORED = np.dtype(
    [
        ("epoch", "<u4"),
        ("seq", "<u8"),
        ("time", "<i8"),
        ("bid", "<f8"),
        ("ask", "<f8"),
        ("last", "<f8"),
        ("volume", "<u8"),
        ("time_msc", "<i8"),
        ("flags", "<u4"),
        ("volume_real", "<f8"),
        ("quarantine", "u1"),
        ("backfill", "u1"),
    ]
)
FIELDS = ("time", "bid", "ask", "last", "volume", "time_msc", "flags", "volume_real")


@dataclass
class FaultHouse:
    """Engines of our own, which may be killed. root: their data, on memory where there is some to spare."""

    house: House
    engines: dict[str, Child]

    def heal(self) -> None:
        for engine in self.engines.values():
            engine.supervise()


@dataclass
class World:
    """One source's way from terminal to store.

    dialled: the proxy between connector and bridge; stored: the one between bridge and ClickHouse.
    """

    seed: int
    directory: Path
    settings: Settings
    engines: dict[str, Child]
    tape: Tape
    dialled: Proxy | None
    stored: Proxy | None
    children: dict[str, Child]
    spool: Path
    chance: random.Random

    @property
    def processes(self) -> dict[str, Child]:
        return {**self.engines, **self.children}

    # -- going on ------------------------------------------------------------------------------------

    def supervise(self) -> None:
        for child in self.processes.values():
            child.supervise()

    def let_run(self, seconds: float) -> None:
        """Go on for a while, starting again whatever has ended."""
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            self.supervise()
            time.sleep(min(0.02, left_s))

    def wait_for(self, fact: Callable[[], Any], what: str, timeout_s: float = HEAL_TIMEOUT_S) -> Any:
        def supervised() -> Any:
            self.supervise()
            return fact()

        try:
            return wait_for(supervised, what, timeout_s)
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.report()}") from e

    def status(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.spool / "status.json").read_bytes()))
        except (OSError, ValueError):
            return {}

    def acknowledged(self) -> int:
        return int(self.status().get("acked_seq", 0))

    def wait_flowing(self) -> None:
        """Wait until ticks are being stored."""
        stored = self.stored
        if stored is None:
            acknowledged = self.acknowledged()
            self.wait_for(lambda: self.acknowledged() > acknowledged, "ticks being acknowledged")
        else:
            # Seen sooner than in the connector's status, which is written once a second.
            bytes_up = stored.bytes_up
            self.wait_for(lambda: stored.bytes_up > bytes_up + INSERT_BYTES, "ticks being stored")

    # -- the end -------------------------------------------------------------------------------------

    def finish(self, timeout_s: float = HEAL_TIMEOUT_S) -> list[str]:
        """Heal, end the tape, drain, judge. Return what is wrong."""
        self.supervise()
        rows = self.tape.end()
        found = []
        try:
            self.wait_for(lambda: self.status().get("drained"), "drained", timeout_s)
        except AssertionError as e:
            found.append(f"not healed: {e}; {self.status()}")
        return found + asyncio.run(self._judge(rows))

    def assert_whole(self) -> None:
        violations = self.finish()
        assert not violations, "\n".join([*violations, self.report()])

    async def _judge(self, rows: int) -> list[str]:
        stored = {symbol: await self._stored(symbol) for symbol in SYMBOLS}
        found = [p for symbol in SYMBOLS for p in self._of_symbol(symbol, stored[symbol], rows)]
        found += _of_epochs(stored, rows * len(SYMBOLS))
        found += await self._of_certificates(TALLY_TIMEOUT_S if not found else 0.0)
        return found

    async def _stored(self, symbol: str) -> np.ndarray:
        columns = ", ".join("toUInt8(quarantine)" if c == "quarantine" else c for c in STORED.names or ())
        query = f"select {columns} from ticks where source = '{SOURCE}' and symbol = '{symbol}' order by epoch, seq"
        async with open_hub(self.settings, {"clickhouse"}, patience_s=HEAL_TIMEOUT_S) as hub:
            body = await hub["clickhouse"].client.raw_query(query, fmt="RowBinary")
        return np.frombuffer(body, STORED)

    def _of_symbol(self, symbol: str, stored: np.ndarray, rows: int) -> list[str]:
        truth = self.tape.rows[symbol][:rows]
        if len(stored) != rows:
            return [f"{symbol}: {rows} ticks were made, {len(stored)} rows are stored"]
        wrong = [name for name in FIELDS if stored[name].tobytes() != truth[name].tobytes()]
        if stored["quarantine"].tobytes() != quarantine(truth).tobytes():
            wrong.append("quarantine")
        if stored["backfill"].any():
            wrong.append("backfill")
        return [f"{symbol}: not the tape in its order: {', '.join(wrong)}"] if wrong else []

    async def _of_certificates(self, patience_s: float) -> list[str]:
        # The last tallies are written behind the connector's back: wait for them, not for their being green.
        deadline_s = time.monotonic() + patience_s
        while True:
            try:
                certificates = await self._certificates()
            except Unavailable:
                certificates = []
            covered = certificates and not any(c.uncertified for c in certificates)
            if covered or time.monotonic() > deadline_s:
                break
            await asyncio.sleep(0.1)
        found = [f"certificate: {problem}" for c in certificates for problem in c.problems]
        return found if covered else [*found, "certificates do not cover everything"]

    async def _certificates(self) -> list[Certificate]:
        async with open_hub(self.settings, {"certifier", "sources"}, patience_s=HEAL_TIMEOUT_S) as hub:
            return await certify(hub["certifier"], hub["sources"], [SOURCE])

    def read_by_a_worker(self) -> set[str]:
        """Ask the database worker, through the queue, which symbols there are."""

        async def ask() -> Answer | str:
            async with open_hub(self.settings, {"redis", "job_queue"}, patience_s=HEAL_TIMEOUT_S) as hub:
                while True:
                    try:
                        return await hub["job_queue"].ask(
                            "market.symbols", SymbolQuery(), tenant=TENANT, timeout_ms=ANSWER_TIMEOUT_MS
                        )
                    except Unavailable:
                        # Its connection is made in the background.
                        await asyncio.sleep(0.05)

        answer = asyncio.run(asyncio.wait_for(ask(), HEAL_TIMEOUT_S))
        assert isinstance(answer, Answer), answer
        return {item["symbol"] for item in json.loads(answer.body)["items"]}

    def report(self) -> str:
        """What a person needs who has to find out why."""
        lines = [
            f"seed {self.seed}: replay with TICKGATE_TEST_SEED={self.seed}",
            f"connector: {self.status()}",
        ]
        lines += [
            f"{child.name}: started {child.starts}, killed {child.kills}, ended {child.ends}"
            for child in self.processes.values()
        ]
        lines += [f"-- {child.name}\n{child.last_words()}" for child in self.children.values()]
        return "\n".join(lines)


def _of_epochs(stored: dict[str, np.ndarray], rows: int) -> list[str]:
    """0 lost, 0 doubled, no holes; and one epoch only: a second one begins when something acknowledged was missing."""
    everything = np.concatenate(list(stored.values()))
    found = []
    epochs = np.unique(everything["epoch"])
    if epochs.tolist() != [1]:
        found.append(f"acknowledged ticks were missing: the spool went on to epochs {epochs.tolist()}")
    for epoch in epochs:
        seqs = everything["seq"][everything["epoch"] == epoch]
        distinct, span = len(np.unique(seqs)), int(seqs.max() - seqs.min()) + 1
        if len(seqs) != distinct:
            found.append(f"epoch {epoch}: {len(seqs) - distinct} rows doubled")
        if distinct != span or seqs.min() != 1:
            found.append(f"epoch {epoch}: {int(seqs.max()) - distinct} rows lost")
    if len(everything) != rows and not found:
        found.append(f"{rows} ticks were made, {len(everything)} rows are stored")
    return found


@contextlib.contextmanager
def running_world(
    fault_house: FaultHouse,
    settings: Settings,
    directory: Path,
    seed: int,
    *,
    rate: float = 1_500.0,
    bug: str = "",
    proxied_bridge: bool = False,
    proxied_store: bool = False,
    worker: bool = False,
    connector: dict[str, Any] | None = None,
    **bridge: Any,
) -> Iterator[World]:
    """Start a bridge, a connector and, if asked for, a database worker, and wait until ticks flow.

    bug: run the bridge with it; see `broken_bridge`. connector, bridge: their settings.
    """
    directory.mkdir(parents=True, exist_ok=True)
    stored = Proxy(settings.clickhouse.port, seed) if proxied_store else None
    replace = msgspec.structs.replace
    seen_by_bridge = (
        replace(settings, clickhouse=replace(settings.clickhouse, port=stored.port)) if stored else settings
    )
    laid_out = build_bridge(seen_by_bridge, directory, **{"heartbeat_ms": 1_000, **bridge})
    dialled = Proxy(laid_out.port, seed) if proxied_bridge else None
    tape = Tape(directory / "tape", seed, rate, ROWS_MAX)
    program = ["tests.faults.broken_bridge", bug] if bug else ["bridge"]
    children = {
        "bridge": Child("bridge", program, laid_out.environment, directory / "bridge.log"),
        "connector": Child(
            "connector",
            ["bridge.connector"],
            _connector_environment(directory, dialled.port if dialled else laid_out.port, connector or {}),
            directory / "connector.log",
        ),
    }
    if worker:
        environment = {**laid_out.environment, "TICKGATE_WORKER_HEALTH_PORT": str(free_port())}
        children["worker"] = Child("worker", ["workers", "database"], environment, directory / "worker.log")
    world = World(
        seed=seed,
        directory=directory,
        settings=settings,
        engines=fault_house.engines,
        tape=tape,
        dialled=dialled,
        stored=stored,
        children=children,
        spool=Path((connector or {}).get("spool_directory", directory / "spool")),
        chance=random.Random(seed),
    )
    try:
        children["bridge"].start()
        if dialled is not None:
            # Behind a proxy a bridge that is still starting looks like one that hangs up.
            wait_for(lambda: bridge_is_ready(laid_out.port), "the bridge being ready")
        world.wait_flowing()
        yield world
    finally:
        for child in world.children.values():
            child.end()
        for proxy in (dialled, stored):
            if proxy is not None:
                proxy.close()


def _connector_environment(directory: Path, port: int, changes: dict[str, Any]) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TICKGATE_")}
    options = {
        "source": SOURCE,
        "token": TOKEN,
        "bridge_url": f"ws://127.0.0.1:{port}",
        "spool_directory": directory / "spool",
        "terminal": "tests.faults.tape:TapeTerminal",
        "terminal_options": json.dumps({"tape": str(directory / "tape")}),
        "poll_interval_ms": 20,
        **changes,
    }
    # The terminal's process looks for modules along this path only.
    environment["PYTHONPATH"] = str(REPOSITORY)
    return environment | {f"TICKGATE_CONNECTOR_{name.upper()}": str(v) for name, v in options.items()}


def bridge_is_ready(port: int) -> bool:
    return http_status(port, "/readyz") == 200
