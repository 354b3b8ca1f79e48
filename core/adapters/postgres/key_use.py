"""When API keys were last used: noted in memory, written in one statement now and then, so that no request waits."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import structlog

from core.adapters.postgres.pool import Postgres
from core.errors.exceptions import TickgateError

log = structlog.get_logger(__name__)

USED_KEYS_MAX: Final = 10_000
NOTED_EVERY_S: Final = 60.0
LAST_NOTE_TIMEOUT_S: Final = 2.0


class KeyUse:
    """Notes uses. Beyond USED_KEYS_MAX keys between two notes, the others' uses go unnoted."""

    def __init__(self, postgres: Postgres, noted_every_s: float = NOTED_EVERY_S) -> None:
        self._postgres = postgres
        self._noted_every_s = noted_every_s
        self._used: dict[str, float] = {}

    def used(self, key_id: str) -> None:
        if len(self._used) < USED_KEYS_MAX:
            self._used[key_id] = time.time()

    async def note(self) -> None:
        """Write when keys were last used; what cannot be written now is kept for the next time."""
        used, self._used = self._used, {}
        if not used:
            return
        try:
            async with self._postgres.acquire() as connection:
                await connection.execute(
                    "update api_keys set last_used_at = greatest(last_used_at, to_timestamp(used.at_s))"
                    " from unnest($1::uuid[], $2::float8[]) as used (id, at_s) where api_keys.id = used.id",
                    list(used),
                    list(used.values()),
                )
        except TickgateError as e:
            self._used = {**used, **self._used}
            log.warning("api_keys.use_not_noted", keys=len(used), error=str(e))

    @asynccontextmanager
    async def noting(self) -> AsyncIterator[None]:
        """Write when keys were last used until left, and then once more."""
        noting = asyncio.create_task(self._note_for_ever(), name="api-keys")
        try:
            yield
        finally:
            noting.cancel()
            await asyncio.wait((noting,))
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_NOTE_TIMEOUT_S):
                    await self.note()

    async def _note_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._noted_every_s)
            await self.note()
