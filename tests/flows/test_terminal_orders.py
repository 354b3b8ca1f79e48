"""Orders through a real bridge and a real connector to the simulated terminal: each is executed at most once.

Whatever fails on the way, the answer is true: who is told that nobody was asked finds no execution, who is told of a
fill finds one, and only who is told that nobody can say finds either.
"""

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis

from core.adapters.redis import terminal_orders
from core.adapters.redis.terminal_relay import holder_key
from core.errors.exceptions import Unavailable, UnknownOutcome
from core.infrastructure.central_hub import open_hub
from core.messages.order_seals import CommandSigner
from core.messages.terminal_orders import RelayedCommand, encode_command, encode_relayed
from core.model.orders import Order, OrderState
from core.model.venues import VenueReport, VenueView
from core.ports.venues import Venue
from core.settings import Settings
from tests.bridges import Bridge, build_bridge
from tests.connectors import SIMULATED, Connector, build_connector
from tests.engines import House, new_databases
from tests.order_keys import order_key
from tests.orders import ACCOUNT, SOURCE, make_command, make_order, truth

WHEN_NOT_EXECUTED = {OrderState.REJECTED}
WHEN_EXECUTED = {OrderState.FILLED, OrderState.CANCELED, OrderState.ACCEPTED, OrderState.PARTIALLY_FILLED}


@pytest.fixture(scope="module")
def shared_bridge(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    bridge = build_bridge(new_databases(house), tmp_path_factory.mktemp("bridge"))
    bridge.start()
    try:
        bridge.wait_ready()
        yield bridge
    finally:
        bridge.stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def shared_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One terminal's directory for all: what it has done and how its clock runs is remembered."""
    return tmp_path_factory.mktemp("connector")


def laid_out(bridge: Bridge, directory: Path, **faults: Any) -> Connector:
    options = {"rate": 5.0, "symbols": ["EURUSD"], "faults": {"orders": faults}}
    return build_connector(bridge.port, directory, SIMULATED, options, orders=True, call_timeout_s=1.0)


@contextmanager
def running_connector(bridge: Bridge, directory: Path, **faults: Any) -> Iterator[Connector]:
    connector = laid_out(bridge, directory, **faults)
    connector.start()
    try:
        yield connector
    finally:
        connector.stop(signal.SIGKILL)


@asynccontextmanager
async def opened_venue(settings: Settings) -> AsyncIterator[Venue]:
    async with open_hub(settings, {"mt5_venue"}) as hub:
        yield hub["mt5_venue"]


def redis_of(settings: Settings) -> "redis.Redis":
    ours = settings.redis
    return redis.Redis(port=ours.port, db=ours.database, password=ours.password.reveal())


async def viewed(venue: Venue, timeout_s: float = 40.0) -> VenueView:
    """Return the first view: then bridge, connector and terminal are there, and the clock is measured."""
    async with asyncio.timeout(timeout_s):
        while True:
            try:
                return await venue.view(ACCOUNT, 0)
            except Unavailable:
                await asyncio.sleep(0.1)


@dataclass
class Told:
    """What was asked, and what was answered to it."""

    reports: dict[str, VenueReport] = field(default_factory=dict)
    not_asked: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)

    async def send(self, venue: Venue, order: Order) -> None:
        try:
            report = await venue.send(ACCOUNT, order)
        except Unavailable:
            self.not_asked.add(order.id)
        except UnknownOutcome:
            self.unknown.add(order.id)
        else:
            self.reports[order.id] = report
            if report.state is OrderState.UNKNOWN:
                self.unknown.add(order.id)

    def check(self, directory: Path, view: VenueView) -> None:
        executions = truth(directory).executions
        assert max(executions.values(), default=0) <= 1
        assert not self.not_asked & set(executions), "told that nobody was asked, and it was executed"
        for tag, report in self.reports.items():
            if report.state in WHEN_NOT_EXECUTED:
                assert tag not in executions, report
            if report.state in WHEN_EXECUTED:
                assert executions.get(tag) == 1, report
        # A look tells what nobody could say: every execution is found by its tag.
        seen = {deal.tag for deal in view.deals}
        mine = self.not_asked | self.unknown | set(self.reports)
        assert seen & mine == set(executions) & mine


def test_a_market_order_is_filled_in_the_terminal(shared_bridge: Bridge, shared_directory: Path) -> None:
    async def run() -> None:
        async with opened_venue(shared_bridge.settings) as venue:
            with pytest.raises(Unavailable) as nobody:
                await venue.send(ACCOUNT, make_order())
            assert nobody.value.code == "TERMINAL_NOT_CONNECTED"
            with running_connector(shared_bridge, shared_directory) as connector:
                await viewed(venue)
                bought = make_order()
                report = await venue.send(ACCOUNT, bought)
                assert (report.state, report.retcode, report.code) == (OrderState.FILLED, 10_009, "")
                assert [deal.tag for deal in report.deals] == [bought.id]
                view = await venue.view(ACCOUNT, 0)
                assert [position.tag for position in view.positions] == [bought.id]
                assert [(one.tag, one.state) for one in view.ended] == [(bought.id, OrderState.FILLED)]
                assert view.deals == report.deals
                assert truth(connector.spool).executions == {bought.id: 1}

    asyncio.run(run())


def test_who_writes_to_redis_makes_no_order_and_gives_none_twice(
    shared_bridge: Bridge, shared_directory: Path
) -> None:
    forger = CommandSigner(order_key("who has only Redis"))

    async def run() -> None:
        settings = shared_bridge.settings
        async with opened_venue(settings) as venue, open_hub(settings, {"terminal_relay"}) as hub:
            with (
                running_connector(shared_bridge, shared_directory, reject=1.0) as connector,
                redis_of(settings) as client,
            ):
                await viewed(venue)
                bridge_inbox = client.get(holder_key(SOURCE))

                def put(sealed: bytes) -> None:
                    relayed = RelayedCommand(reply_to="tickgate:terminal:forger", sealed=sealed)
                    client.rpush(bridge_inbox, encode_relayed(relayed))

                async def answered(count: int) -> None:
                    async with asyncio.timeout(10):
                        while client.llen("tickgate:terminal:forger") < count:
                            await asyncio.sleep(0.02)

                forged = make_command()
                put(forger.sealed(encode_command(forged)))
                await answered(1)
                # A true one that the terminal did not take, seen on its way and given again.
                client.delete(holder_key(SOURCE))
                await hub["terminal_relay"].announce([SOURCE])
                asked = make_order()
                asking = asyncio.create_task(venue.send(ACCOUNT, asked))
                (seen,) = await hub["terminal_relay"].take()
                client.rpush(bridge_inbox, encode_relayed(seen))
                report = await asking
                assert report.state is OrderState.REJECTED
                put(seen.sealed)
                await answered(2)
                assert not {forged.order.id, asked.id} & set(truth(connector.spool).executions)
        log = connector.log.read_text()
        assert "order_command.not_signed" in log
        assert "order_command.again" in log

    asyncio.run(run())


FAULTS = {
    "timeout": {"timeout": 1.0},
    "disconnect": {"disconnect": 1.0},
    "forget": {"forget": 1.0},
    "nothing": {"nothing": 1.0},
    "hang": {"hang": 1.0},
    "die": {"die": 1.0},
    "die_before": {"die_before": 1.0},
    "reject": {"reject": 1.0},
    "fail_after_placed": {"fail_after_placed": 1.0},
    "partial": {"partial": 1.0},
    "delay": {"delay": 1.0, "delay_ms": 300},
    "rewrite_comment": {"rewrite_comment": 1.0},
    "all": dict.fromkeys(("timeout", "forget", "nothing", "die", "die_before", "reject", "partial"), 0.09),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_under_every_fault_an_order_is_executed_at_most_once(
    shared_bridge: Bridge, shared_directory: Path, fault: str
) -> None:
    async def run() -> None:
        told = Told()
        async with opened_venue(shared_bridge.settings) as venue:
            with running_connector(shared_bridge, shared_directory, **FAULTS[fault]) as connector:
                await viewed(venue)
                await asyncio.gather(*(told.send(venue, make_order()) for _ in range(3)))
                told.check(connector.spool, await viewed(venue))
        assert told.reports or told.unknown

    asyncio.run(run())


async def disturbed(
    venue: Venue, disturb: Callable[[], None], restore: Callable[[], None], seed: int
) -> Told:
    """Send orders while something is killed in their midst and started again, twice."""
    told, chance = Told(), random.Random(seed)
    sending: set[asyncio.Task[None]] = set()
    for _ in range(2):
        for number in range(12):
            sending.add(asyncio.create_task(told.send(venue, make_order())))
            await asyncio.sleep(chance.uniform(0.0, 0.08))
            if number == 6:
                disturb()
        await asyncio.to_thread(restore)
        await viewed(venue)
    await asyncio.gather(*sending)
    return told


def test_a_connector_killed_in_the_middle_executes_nothing_twice(
    shared_bridge: Bridge, shared_directory: Path
) -> None:
    connector = laid_out(shared_bridge, shared_directory, delay=1.0, delay_ms=60)

    async def run() -> None:
        async with opened_venue(shared_bridge.settings) as venue:
            await viewed(venue)
            told = await disturbed(venue, lambda: connector.stop(signal.SIGKILL), connector.start, 1)
            told.check(connector.spool, await viewed(venue))
            assert told.unknown, "the kill met an order that was being sent"
            assert any(report.state is OrderState.FILLED for report in told.reports.values())

    connector.start()
    try:
        asyncio.run(run())
    finally:
        connector.stop(signal.SIGKILL)


def test_a_bridge_killed_in_the_middle_executes_nothing_twice(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of a bridge that is gone no answer comes, however long one waits.
    monkeypatch.setattr(terminal_orders, "ANSWER_TIMEOUT_S", 3.0)
    bridge = build_bridge(new_databases(house), tmp_path, lease_ttl_s=2.0)

    def start() -> None:
        bridge.start()
        bridge.wait_ready()

    async def run() -> None:
        async with opened_venue(bridge.settings) as venue:
            await viewed(venue)
            told = await disturbed(venue, lambda: bridge.stop(signal.SIGKILL), start, 2)
            told.check(connector.spool, await viewed(venue))
            assert told.unknown, "the kill met an order that was being sent"
            assert any(report.state is OrderState.FILLED for report in told.reports.values())

    start()
    connector = laid_out(bridge, tmp_path / "connector", delay=1.0, delay_ms=60)
    connector.start()
    try:
        asyncio.run(run())
    finally:
        connector.stop(signal.SIGKILL)
        bridge.stop(signal.SIGKILL)
