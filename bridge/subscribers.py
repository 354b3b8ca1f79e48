"""How many live streams each tenant has open here: one tenant must not have every place."""

from collections import Counter

from core.errors.exceptions import RateLimited


class Subscribers:
    """Counts the subscribers of this bridge by tenant."""

    def __init__(self, by_tenant_max: int) -> None:
        self._by_tenant_max = by_tenant_max
        self._open: Counter[str] = Counter()

    def enter(self, tenant: str) -> None:
        """Take a place, until `leave`. Raises: RateLimited."""
        if self._open[tenant] >= self._by_tenant_max:
            raise RateLimited("too many live streams of yours are open", code="TOO_MANY_SUBSCRIBERS")
        self._open[tenant] += 1

    def leave(self, tenant: str) -> None:
        self._open[tenant] -= 1
        if not self._open[tenant]:
            del self._open[tenant]
