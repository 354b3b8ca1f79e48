"""Retention by policy: months wholly older than the policy are dropped, and the ledger knows before it happens."""

from typing import Final

import structlog

from core.ports.ticks import Retention, SourceRegistry

log = structlog.get_logger(__name__)

MS_PER_DAY: Final = 86_400_000


async def enforce(retention: Retention, registry: SourceRegistry, ticks_days: int, now_ms: int) -> list[str]:
    """Drop every month that ended more than `ticks_days` ago and return their names; 0 days keeps everything.

    What is dropped is noted first: a bridge that asks the store how far it has got must not ask a connector for ticks
    again only because they have been dropped, and a certificate must not miss them. Doing it twice changes nothing.

    Raises:
        Unavailable: ledger or store do not answer; what was not dropped is next time.
    """
    if not ticks_days:
        return []
    dropped: list[str] = []
    for month in await retention.expired(now_ms - ticks_days * MS_PER_DAY):
        await registry.note_drop(month)
        await retention.drop(month)
        log.info("retention.dropped", month=month.name, sources=len(month.contents))
        dropped.append(month.name)
    return dropped
