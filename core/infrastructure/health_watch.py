"""How the stores of one process stand: each is asked at most once a second, however many want to know."""

import asyncio
import time
from typing import Any, Final

from core.errors.exceptions import TickgateError
from core.infrastructure.central_hub import PING_TIMEOUT_S, Hub
from core.infrastructure.providers import Provider
from core.messages.health import HealthReport, StoreReport

KEPT_S: Final = 1.0


class HealthWatch:
    """Asks the stores a hub has open. observer: what this process is called."""

    def __init__(self, hub: Hub, observer: str) -> None:
        self._hub = hub
        self._observer = observer
        self._asking: asyncio.Task[HealthReport] | None = None
        self._asked_at_s = -KEPT_S
        self._versions: dict[str, str] = {}
        self._failures: dict[str, tuple[int, str]] = {}

    async def report(self) -> HealthReport:
        """Return how every store stood within the last second."""
        if self._asking is None or (self._asking.done() and time.monotonic() - self._asked_at_s >= KEPT_S):
            self._asked_at_s = time.monotonic()
            self._asking = asyncio.create_task(self._ask())
        # Whoever gives up must not take the answer away from the others.
        return await asyncio.shield(self._asking)

    async def _ask(self) -> HealthReport:
        stores = [provider for provider in self._hub.providers if provider.store]
        reports = await asyncio.gather(*(self._look_at(provider) for provider in stores))
        return HealthReport(observer=self._observer, stores=sorted(reports, key=lambda one: one.store))

    async def _look_at(self, provider: Provider) -> StoreReport:
        service: Any = self._hub[provider.name]
        began_s = time.perf_counter()
        error = ""
        try:
            async with asyncio.timeout(PING_TIMEOUT_S):
                await service.ping()
        except TimeoutError:
            error = f"no answer within {PING_TIMEOUT_S:g} s"
        except TickgateError as e:
            error = e.public
        latency_ms = round((time.perf_counter() - began_s) * 1_000, 2)
        at_ms = time.time_ns() // 1_000_000
        if error:
            self._failures[provider.store] = (at_ms, error)
            # It may come back as another.
            self._versions.pop(provider.store, None)
        failed_at_ms, last_error = self._failures.get(provider.store, (None, ""))
        standing = service.use.standing if hasattr(service, "use") else None
        return StoreReport(
            store=provider.store,
            state="fail" if error else "pass",
            latency_ms=latency_ms,
            version="" if error else await self._version(provider.store, service),
            stand_in=provider.stand_in and f"{provider.stand_in} stands in",
            error=error,
            last_error=last_error,
            failed_at_ms=failed_at_ms,
            at_ms=at_ms,
            in_use=standing.in_use if standing else None,
            waiting=standing.waiting if standing else None,
            size=standing.size if standing else None,
        )

    async def _version(self, store: str, service: Any) -> str:
        if store not in self._versions and hasattr(service, "version"):
            try:
                self._versions[store] = await service.version()
            except TickgateError:
                return ""
        return self._versions.get(store, "")
