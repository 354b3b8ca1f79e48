"""The database worker's housekeeping: the retention policy, once an hour."""

import asyncio
import time
from typing import Final

import structlog

from core.errors.exceptions import TickgateError
from core.market.retention import enforce
from core.ports import Retention, SourceRegistry

log = structlog.get_logger(__name__)

INTERVAL_S: Final = 3_600.0


async def keep_to_policy(retention: Retention, registry: SourceRegistry, ticks_days: int) -> None:
    """Enforce the policy now and every hour until cancelled; a store that is away is asked again next time."""
    while True:
        try:
            await enforce(retention, registry, ticks_days, time.time_ns() // 1_000_000)
        except TickgateError as e:
            log.warning("retention.waits", error=str(e))
        await asyncio.sleep(INTERVAL_S)
