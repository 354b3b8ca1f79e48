"""How many answers without end one gateway process sends at a time, and that one tenant never has every place."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from prometheus_client import Gauge

from core.errors.exceptions import RateLimited
from core.telemetry import metrics


@dataclass(slots=True)
class Places:
    """Counts the exports, or the streams, of this process: `what` they are called. The last place is for a tenant that
    has none yet, if there are several.
    """

    places_max: int
    what: str = "exports"
    gauge: Gauge = metrics.EXPORTS_RUNNING
    taken: int = 0
    _by_tenant: Counter[str] = field(default_factory=Counter)

    @asynccontextmanager
    async def one(self, tenant: str) -> AsyncIterator[None]:
        """Raises: RateLimited."""
        places_max = self.places_max - 1 if self._by_tenant[tenant] else self.places_max
        if self.taken >= places_max:
            code = f"TOO_MANY_{self.what.upper()}"
            raise RateLimited(f"too many {self.what} at once; try again soon", code=code)
        self.taken += 1
        self._by_tenant[tenant] += 1
        self.gauge.set(self.taken)
        try:
            yield
        finally:
            self.taken -= 1
            self._by_tenant[tenant] -= 1
            if not self._by_tenant[tenant]:
                del self._by_tenant[tenant]
            self.gauge.set(self.taken)
