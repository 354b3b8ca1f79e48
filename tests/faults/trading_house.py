"""A whole trading house under callers, on engines of its own, and everything in it that can be killed.

An account on paper and one at a simulated terminal, gateway, two trading workers and one for reads, bridge,
connector, PostgreSQL and Valkey. Whatever ends is started again at once, as a supervisor would.
"""

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
import redis

from core.errors.exceptions import TickgateError
from core.infrastructure.central_hub import open_hub
from core.model.orders import TERMINAL
from core.settings import Settings
from tests.bridges import Bridge, build_bridge
from tests.connectors import SIMULATED, Connector, build_connector
from tests.engines import free_port, listens, wait_for
from tests.faults.beside import beside
from tests.faults.processes import Child
from tests.faults.world import FaultHouse
from tests.gateways import Process
from tests.trading_floors import SYMBOL, Floor, account, keep_records, put_quote, running_floor

PAPER, TERMINAL_ACCOUNT, TERMINAL_SOURCE = "paper", "terminal", "demo2"
QUOTE_INTERVAL_S: Final = 0.2
DOWN_S_MAX: Final = 0.3
CALM_SHARE, CALM_S_MAX = 0.4, 2.0
LOOK_INTERVAL_S: Final = 0.1
PATIENCE_S: Final = 20.0
ABSENT_S: Final = 6.0
"""Longer than a command may lie before a terminal; else that the terminal has not had it would be no proof."""
SEND_TIMEOUT_S: Final = 3.0
LEASE_S: Final = 2.0
WIDE: Final = {
    "submits_per_minute_max": 1_000_000,
    "duplicate_window_ms": 0,
    "position_max": "100000",
    "account_notional_max": "100000000000",
    "margin_share_max": "1",
    "consecutive_rejects_max": 1_000_000,
    "quote_age_ms_max": 60_000,
}


@dataclass
class TradingHouse:
    """ours: processes of ours by name; engines: those they need. killed: how often what was killed."""

    floor: Floor
    ours: dict[str, Process | Bridge | Connector]
    engines: dict[str, Child]
    spool: Path
    killed: dict[str, int] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)
    """What ended without being told to, with its last words."""
    filled: dict[str, int] = field(default_factory=dict)
    """Fills of each account so far."""

    @property
    def settings(self) -> Settings:
        return self.floor.door.settings

    def hurt(self, chance: random.Random) -> None:
        """Kill one of them with -9, or empty Redis; start again at once what was killed."""
        victim = chance.choices(list(VICTIMS), list(VICTIMS.values()))[0]
        self.killed[victim] = self.killed.get(victim, 0) + 1
        if victim == "redis emptied":
            with contextlib.suppress(redis.RedisError), self._redis() as client:
                client.flushdb()
        elif victim in self.engines:
            self._kill_engine(self.engines[victim], chance.uniform(0, DOWN_S_MAX))
        else:
            process = self.ours[victim].process
            assert process is not None
            process.kill()
            process.wait()
            self.ours[victim].start()

    def calm_down(self, chance: random.Random) -> None:
        """Every other time let something be filled, where that takes no longer than CALM_S_MAX: what is killed all the
        time never gets to the moments in which it could do harm.
        """
        before, until_s = sum(self.filled.values()), time.monotonic() + CALM_S_MAX
        if chance.random() < CALM_SHARE:
            while sum(self.filled.values()) == before and time.monotonic() < until_s:
                self.let_run(0.05)

    def supervise(self) -> None:
        """Start again what has ended."""
        for name, one in self.ours.items():
            assert one.process is not None
            if one.process.poll() is not None:
                self.ended.append(f"{name} ended by itself:\n{one.log.read_text()[-2_000:]}")
                one.start()
        for engine in self.engines.values():
            engine.supervise()

    def let_run(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            self.supervise()
            time.sleep(min(0.05, left_s))

    def wait_for(self, fact: Callable[[], Any], what: str, timeout_s: float) -> None:
        def supervised() -> Any:
            self.supervise()
            return fact()

        wait_for(supervised, what, timeout_s)

    def in_motion(self) -> int:
        """Return how many orders have not ended."""
        query = "select count(*) from orders where state <> all($1)"
        return int(asyncio.run(self._asked(query, list(TERMINAL))))

    def compared(self) -> Callable[[], bool]:
        """Return a fact: that both accounts have been compared with their venues since now."""
        query = "select count(*) from account_books where reconciled_at > $1 and account = any($2)"
        now = asyncio.run(self._asked("select clock_timestamp()"))
        return lambda: asyncio.run(self._asked(query, now, [PAPER, TERMINAL_ACCOUNT])) == 2

    def alerts(self) -> str:
        """Return what the trading workers have said of orders nobody knows anything of."""
        logs = (self.ours[name].log.read_text() for name in ("trading", "trading-2"))
        return "\n".join(line for log in logs for line in log.splitlines() if "order.unknown" in line)

    async def _asked(self, query: str, *args: Any) -> Any:
        async with (
            open_hub(self.settings, {"postgres"}, patience_s=PATIENCE_S) as hub,
            hub["postgres"].acquire() as connection,
        ):
            return await connection.fetchval(query, *args)

    def _kill_engine(self, engine: Child, down_s: float) -> None:
        if not engine.alive:
            return
        assert engine.process is not None
        # The postmaster with all it has forked: they are groups of their own.
        family = psutil.Process(engine.process.pid).children(recursive=True)
        engine.kill(down_s=down_s)
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()

    def _redis(self) -> "redis.Redis":
        ours = self.settings.redis
        return redis.Redis(port=ours.port, db=ours.database, password=ours.password.reveal())


VICTIMS: Final = {
    "gateway": 3,
    "database": 1,
    "trading": 5,
    "trading-2": 5,
    "bridge": 1,
    "connector": 1,
    "postgres": 3,
    "valkey": 1,
    "redis emptied": 1,
}
"""What may be killed, how often of 21 times. What takes seconds to come back is killed less often."""


@contextlib.contextmanager
def running_trading_house(house: FaultHouse, root: Path) -> Iterator[TradingHouse]:
    """Run it all, with limits that stand in nobody's way, until both accounts have been matched with their venues."""
    house.heal()
    for name, engine in house.house.engines.items():
        wait_for(lambda port=engine.port: house.heal() or listens(port), f"{name} listening")
    with (
        running_floor(root / "floor", house.house, absent_s=ABSENT_S, send_timeout_s=SEND_TIMEOUT_S) as floor,
        contextlib.ExitStack() as stack,
    ):
        put = floor.http.put("/v1/risk-limits/tenant/-", json=WIDE, headers={"If-Match": "*"})
        assert put.status_code == 200, put.text
        made = _laid_out(floor, house, root)
        for one in made.ours.values():
            if one.process is None:
                stack.callback(one.stop, signal.SIGKILL)
                one.start()
        body = account(title="terminal", server="simulation", venue="mt5", source=TERMINAL_SOURCE)
        asyncio.run(keep_records(made.settings, "demo", {TERMINAL_ACCOUNT: body}, instrument=False))
        stack.callback(_healed, made)
        with beside(_quoting(made.settings)), beside(_counting(made)):
            made.wait_for(made.compared(), "both accounts being matched with their venues", 60.0)
            yield made


def _laid_out(floor: Floor, house: FaultHouse, root: Path) -> TradingHouse:
    second = {**floor.trading.environment, "TICKGATE_WORKER_HEALTH_PORT": str(free_port())}
    (root / "terminal").mkdir(parents=True)
    bridge = build_bridge(floor.door.settings, root / "terminal", lease_ttl_s=LEASE_S)
    connector = build_connector(
        bridge.port,
        root / "connector",
        SIMULATED,
        {"symbols": [SYMBOL], "rate": 5.0},
        orders=True,
        source=TERMINAL_SOURCE,
        token="t",
        call_timeout_s=2.0,
    )
    return TradingHouse(
        floor=floor,
        ours={
            "gateway": floor.door.gateway,
            "database": floor.door.worker,
            "trading": floor.trading,
            "trading-2": Process(["workers", "trading"], second, root / "trading-2.log"),
            "bridge": bridge,
            "connector": connector,
        },
        engines={name: house.engines[name] for name in ("postgres", "valkey")},
        spool=connector.spool,
    )


def _healed(made: TradingHouse) -> None:
    """Leave the engines to others as they were found."""
    for name, engine in made.engines.items():
        port = getattr(made.settings, {"valkey": "redis"}.get(name, name)).port
        wait_for(lambda: engine.supervise() or listens(port), f"{name} listening")  # noqa: B023


async def _quoting(settings: Settings) -> None:
    """Keep both sources quoted, however few ticks get through. Redis may just be away; the next quote comes."""
    while True:
        for source in ("demo", TERMINAL_SOURCE):
            with contextlib.suppress(TickgateError):
                await put_quote(settings, source=source)
        await asyncio.sleep(QUOTE_INTERVAL_S)


async def _counting(made: TradingHouse) -> None:
    """Count fills, whenever the ledger can be asked."""
    async with open_hub(made.settings, {"postgres"}, patience_s=PATIENCE_S) as hub:
        while True:
            with contextlib.suppress(TickgateError):
                async with hub["postgres"].acquire() as connection:
                    rows = await connection.fetch("select account, count(*) from fills group by account")
                made.filled = {row["account"]: row["count"] for row in rows}
            await asyncio.sleep(LOOK_INTERVAL_S)
