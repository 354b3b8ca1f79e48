"""Central Hub: the composition root. It knows every service; nothing below it knows the hub.

A process says what it needs; the hub opens that and what it requires, in dependency order, and closes in reverse.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final, TypeVar

from core.errors.exceptions import Defect, TickgateError, Unavailable
from core.infrastructure.import_manager import resolve
from core.infrastructure.providers import PROVIDERS, Provider, providers_of
from core.infrastructure.schemas import EMPTIED, require_current
from core.settings import Settings

Result = TypeVar("Result")
PING_TIMEOUT_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What one ping found. error: empty when it answered."""

    name: str
    latency_ms: float
    error: str = ""

    @property
    def healthy(self) -> bool:
        return not self.error


class Hub:
    """The services one process has open. Ask by name: `hub["tick_store"]`."""

    def __init__(self, services: Mapping[str, Any], providers: Mapping[str, Provider]) -> None:
        self._services = services
        self._providers = providers

    def __getitem__(self, name: str) -> Any:
        if name not in self._services:
            raise Defect(f"this process did not open {name!r}", code="SERVICE_NOT_OPEN")
        return self._services[name]

    def __contains__(self, name: str) -> bool:
        return name in self._services

    @property
    def providers(self) -> tuple[Provider, ...]:
        """Of the services this process has open."""
        return tuple(self._providers[name] for name in self._services)

    async def health(self) -> tuple[Health, ...]:
        """Ping every open service that answers pings, all at once, each for at most PING_TIMEOUT_S."""
        pinged = [name for name in self._services if self._providers[name].pinged]
        return tuple(await asyncio.gather(*(self._ping(name) for name in pinged)))

    async def _ping(self, name: str) -> Health:
        started = time.perf_counter()
        error = ""
        try:
            async with asyncio.timeout(PING_TIMEOUT_S):
                await self._services[name].ping()
        except TimeoutError:
            error = f"no answer within {PING_TIMEOUT_S:g} s"
        except TickgateError as e:
            error = e.public
        return Health(name=name, latency_ms=(time.perf_counter() - started) * 1_000, error=error)


def opening_order(
    needs: Collection[str], providers: Mapping[str, Provider] = PROVIDERS
) -> tuple[Provider, ...]:
    """Return what to open for `needs`, each after everything it requires; nothing else is opened.

    Raises:
        Defect: a name has no provider, or services require each other in a circle.
    """
    graph: dict[str, frozenset[str]] = {}
    pending = list(needs)
    while pending:
        name = pending.pop()
        if name in graph:
            continue
        if name not in providers:
            raise Defect(f"no provider for {name!r}", code="NO_PROVIDER")
        graph[name] = providers[name].requires
        pending.extend(graph[name])
    try:
        return tuple(providers[name] for name in TopologicalSorter(graph).static_order())
    except CycleError as e:
        raise Defect(f"services require each other in a circle: {e.args[1]}", code="PROVIDER_CYCLE") from e


@asynccontextmanager
async def open_hub(
    settings: Settings, needs: Collection[str], *, patience_s: float = 0.0, checked: bool = True
) -> AsyncIterator[Hub]:
    """Open `needs` and close them in reverse.

    patience_s: how long to keep trying a service that is not there yet; a process started beside its
        stores waits for them, and for their migration, instead of dying.
    checked: whether a store's schema has to be this version's.

    Raises:
        Unavailable: a service did not come up in time. Misconfigured: it never will as it is set up, or a newer
        version has migrated it. Corrupt: a step of its schema was edited.
    """
    deadline = time.monotonic() + patience_s
    services: dict[str, Any] = {}
    providers = providers_of(settings)
    async with AsyncExitStack() as stack:
        for provider in opening_order(needs, providers):
            services[provider.name] = await _open(provider, settings, services, stack, deadline)
            if provider.schema and checked:
                await _check_schema(provider, services[provider.name], deadline)
        yield Hub(services, providers)


async def _open(
    provider: Provider,
    settings: Settings,
    services: Mapping[str, Any],
    stack: AsyncExitStack,
    deadline: float,
) -> Any:
    opens = resolve(provider.opens)
    return await _patiently(lambda: stack.enter_async_context(opens(settings, services)), deadline)


async def _check_schema(provider: Provider, service: Any, deadline: float) -> None:
    reads = resolve(provider.schema)

    async def check() -> None:
        try:
            applied = await reads(service)
        except Unavailable:
            if provider.name in EMPTIED:
                # Its absence is no reason not to start.
                return
            raise
        require_current(provider.name, applied)

    await _patiently(check, deadline)


async def _patiently(act: Callable[[], Awaitable[Result]], deadline: float) -> Result:
    while True:
        try:
            return await act()
        except Unavailable:
            if time.monotonic() >= deadline:
                raise
            await asyncio.sleep(0.1)
