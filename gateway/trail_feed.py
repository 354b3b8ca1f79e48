"""What streams of one gateway process read of audit trails: woken by news, each page read once for all of them.

A stream goes by its cursor into the trail, so news that are lost, late or doubled cost time and no event. While news
come it looks by itself every FALLBACK_S, else every POLL_S.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from core.model.audit import AuditEntry
from core.ports.audit import AuditTrail
from core.ports.trail import TrailEars

FALLBACK_S: Final = 2.0
POLL_S: Final = 0.2
BATCH: Final = 200


class TrailFeed:
    """Wakes streams, each by its own tenant's news, and reads for them."""

    def __init__(self, audit: AuditTrail, ears: TrailEars) -> None:
        self._audit = audit
        self._ears = ears
        self._bells: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._reads: dict[tuple[str, int], asyncio.Task[Sequence[AuditEntry]]] = {}
        ears.heed(self._heard)

    @contextmanager
    def follow(self, tenant: str) -> Iterator[asyncio.Event]:
        """Return what is set whenever the tenant's trail may have grown. Clear it before you read."""
        bell = asyncio.Event()
        self._bells[tenant].add(bell)
        try:
            yield bell
        finally:
            self._bells[tenant].discard(bell)
            if not self._bells[tenant]:
                del self._bells[tenant]

    async def read(self, tenant: str, after: int) -> Sequence[AuditEntry]:
        """Return the next events behind `after`, BATCH at most. Raises: Unavailable."""
        key = (tenant, after)
        read = self._reads.get(key)
        if read is None:
            read = asyncio.create_task(self._read(tenant, after))
            self._reads[key] = read
            read.add_done_callback(lambda done: self._forget(key, done))
        # One stream that is hung up on must not take the page from the others.
        return await asyncio.shield(read)

    async def wait(self, bell: asyncio.Event) -> None:
        """Wait until the trail may have grown."""
        try:
            async with asyncio.timeout(FALLBACK_S if self._ears.listening else POLL_S):
                await bell.wait()
        except TimeoutError:
            return

    async def _read(self, tenant: str, after: int) -> Sequence[AuditEntry]:
        return await self._audit.events(tenant, after=after, limit=BATCH)

    def _forget(self, key: tuple[str, int], done: asyncio.Task[Sequence[AuditEntry]]) -> None:
        if self._reads.get(key) is done:
            del self._reads[key]
        if not done.cancelled():
            # Perhaps nobody waits for it any more, and nobody would look at its error.
            done.exception()

    def _heard(self, tenant: str | None) -> None:
        # What is being read may be older than the news: whoever asks from now on is read to anew.
        for key in [key for key in self._reads if tenant in {None, key[0]}]:
            del self._reads[key]
        for name in list(self._bells) if tenant is None else [tenant]:
            for bell in self._bells.get(name, ()):
                bell.set()
