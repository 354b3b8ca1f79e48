"""The places for exports in one worker, and that one tenant never has every one of them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from core.errors.exceptions import Unavailable
from core.telemetry import metrics


class ExportPlaces:
    """The last place is for a tenant that has none yet, if there are several. patience_s: how long to wait for one."""

    def __init__(self, places_max: int, patience_s: float) -> None:
        self._places_max = places_max
        self._patience_s = patience_s
        self._by_tenant: Counter[str] = Counter()
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def one(self, tenant: str) -> AsyncIterator[None]:
        """Wait a moment for a place; interactive reads need the rest of the worker. Raises: Unavailable."""
        try:
            async with asyncio.timeout(self._patience_s):
                while not self._room_for(tenant):
                    await self._freed.wait()
        except TimeoutError as e:
            raise Unavailable("all places for exports are taken; try again soon", code="EXPORTS_BUSY") from e
        self._by_tenant[tenant] += 1
        metrics.EXPORTS_RUNNING.inc()
        try:
            yield
        finally:
            metrics.EXPORTS_RUNNING.dec()
            self._by_tenant[tenant] -= 1
            if not self._by_tenant[tenant]:
                del self._by_tenant[tenant]
            self._freed.set()
            self._freed = asyncio.Event()

    def _room_for(self, tenant: str) -> bool:
        kept = 1 if self._by_tenant[tenant] else 0
        return self._by_tenant.total() < self._places_max - kept
