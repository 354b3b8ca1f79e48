"""How many exports one gateway process sends at a time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from core.errors.exceptions import RateLimited
from core.telemetry import metrics


@dataclass(slots=True)
class Places:
    """Counts the exports of this process."""

    places_max: int
    taken: int = 0

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Raises: RateLimited."""
        if self.taken >= self.places_max:
            raise RateLimited("too many exports at once; try again soon", code="TOO_MANY_EXPORTS")
        self.taken += 1
        metrics.EXPORTS_RUNNING.set(self.taken)
        try:
            yield
        finally:
            self.taken -= 1
            metrics.EXPORTS_RUNNING.set(self.taken)
