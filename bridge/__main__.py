"""`python -m bridge`: the process that takes ticks in, stores them and fans quotes out."""

import asyncio
import signal
import socket
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import structlog
import uvloop

from bridge.admission import Door
from bridge.fanout import Fanout
from bridge.leases import LeaseKeeper
from bridge.orders import OrderRelay
from bridge.peers import Peers
from bridge.server import Server, listen, tls, watch_readiness
from bridge.sessions import Sessions
from bridge.subscribers import Subscribers
from core.errors.exceptions import TickgateError
from core.infrastructure.central_hub import Hub, open_hub
from core.infrastructure.config_manager import load_settings
from core.infrastructure.open_files import room_for_connections
from core.infrastructure.process import die_with_parent, keep_large_buffers
from core.settings import BridgeSettings, Settings
from core.telemetry.logs import configure_logging

log = structlog.get_logger(__name__)

NEEDS: Final = frozenset({"sources", "tick_store", "latest_quotes", "access_tokens", "terminal_relay"})
START_PATIENCE_S: Final = 60.0
SHUTDOWN_TIMEOUT_S: Final = 5.0
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        return time.monotonic()


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    room_for_connections(settings.bridge.connections_max + settings.bridge.stream_subscribers_max)
    tls(settings.bridge)  # refuse a bad set-up before waiting for any store
    stop = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_number, stop.set)
    async with open_hub(settings, NEEDS, patience_s=START_PATIENCE_S) as hub, AsyncExitStack() as stack:
        sessions = _sessions(settings, hub)
        server = Server(sessions, hub["access_tokens"], settings.bridge)
        background = await stack.enter_async_context(asyncio.TaskGroup())
        tasks = [
            background.create_task(sessions.leases.run()),
            background.create_task(sessions.orders.run()),
            background.create_task(sessions.fanout.keep_latest(hub["latest_quotes"])),
            background.create_task(watch_readiness(server, lambda: _unhealthy(hub))),
        ]
        async with listen(server, settings.bridge):
            await stop.wait()
            log.info("bridge.stopping")
            sessions.shut_down()
            try:
                async with asyncio.timeout(SHUTDOWN_TIMEOUT_S):
                    await sessions.wait_ended()
            except TimeoutError:
                log.warning("bridge.sessions_still_open")
        for task in tasks:
            task.cancel()


def _sessions(settings: Settings, hub: Hub) -> Sessions:
    clock = SystemClock()
    leases_holder = holder(settings.bridge)
    leases = LeaseKeeper(hub["sources"], clock, leases_holder, settings.bridge.lease_ttl_s)
    return Sessions(
        door=Door(registry=hub["sources"], store=hub["tick_store"], leases=leases, settings=settings.bridge),
        registry=hub["sources"],
        store=hub["tick_store"],
        leases=leases,
        fanout=Fanout(),
        clock=clock,
        settings=settings.bridge,
        peers=Peers(settings.bridge),
        subscribers=Subscribers(settings.bridge.stream_subscribers_by_tenant_max),
        orders=OrderRelay(hub["terminal_relay"], clock),
    )


def holder(settings: BridgeSettings) -> str:
    """Name this process as nobody but its own dead predecessor could: a restart takes its leases back at once.

    The port tells two bridges of one machine apart, the boot a machine from what it was before, or from its twin.
    """
    boot = BOOT_ID.read_text().strip() if BOOT_ID.exists() else ""
    return f"{settings.instance or socket.gethostname()}:{settings.port}:{boot}"


async def _unhealthy(hub: Hub) -> str:
    # Redis only carries the latest quotes; ticks are stored without it.
    failing = [health for health in await hub.health() if not health.healthy and health.name != "redis"]
    return "; ".join(f"{health.name}: {health.error}" for health in failing)


def main() -> int:
    die_with_parent()
    keep_large_buffers()
    try:
        settings = load_settings()
        configure_logging("bridge", settings.log_level)
        uvloop.run(run(settings))
    except TickgateError as e:
        sys.stderr.write(f"error: {e}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
