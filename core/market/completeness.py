"""Completeness certificates: is every tick a connector sent stored exactly once? Nothing is taken on trust.

Three facts are compared: the store's own count, its count of distinct seqs and the span of its seqs must be one
number, and for every symbol and day the store's rows and checksum must be those the connector tallied when it sent
them. What retention has dropped was noted month by month: its rows are added, its days left out.
"""

import asyncio
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Final

from core.messages.certificates import Certificate, DayCertificate
from core.model.ticks import Tally
from core.ports.ticks import Certifier, Dropped, EpochAudit, SourceRegistry

CONCURRENT_TALLIES_MAX: Final = 4


async def certify(
    certifier: Certifier, registry: SourceRegistry, sources: Sequence[str], day: int | None = None
) -> list[Certificate]:
    """Certify every epoch of `sources`, or only one day of each (days since 1970-01-01, trade server's clock).

    The tallies are read before the store is asked, so ticks that arrive meanwhile cannot look like a hole.

    Raises:
        Unavailable: ledger or store do not answer.
    """
    certificates: list[Certificate] = []
    for source in sources:
        drops = await registry.epochs(source)
        sent = {epoch: await registry.recorded_tallies(source, epoch, day) for epoch in drops}
        audits = {audit.epoch: audit for audit in await certifier.epochs(source)}
        for epoch in sorted(drops.keys() | audits.keys()):
            audit = audits.get(epoch) or _nothing(source, epoch)
            dropped = drops.get(epoch, Dropped())
            days = await _days(certifier, source, epoch, sent.get(epoch, ()), dropped)
            certificates.append(_certificate(audit, dropped, days, partial=day is not None))
    return certificates


async def _days(
    certifier: Certifier, source: str, epoch: int, tallies: Sequence[Tally], dropped: Dropped
) -> list[DayCertificate]:
    limit = asyncio.Semaphore(CONCURRENT_TALLIES_MAX)

    async def compare(tally: Tally) -> DayCertificate:
        async with limit:
            stored = await certifier.tally(source, epoch, tally)
        return DayCertificate(
            symbol=tally.symbol,
            day=_iso_day(tally.day),
            last_seq=tally.last_seq,
            sent_rows=tally.rows,
            stored_rows=stored.rows,
            sent_checksum=f"{tally.checksum:016x}",
            stored_checksum=f"{stored.checksum:016x}",
            green=(stored.rows, stored.checksum) == (tally.rows, tally.checksum),
        )

    kept = [tally for tally in tallies if _iso_day(tally.day)[:7].replace("-", "") not in dropped.months]
    return list(await asyncio.gather(*map(compare, kept)))


def _certificate(
    audit: EpochAudit, dropped: Dropped, days: list[DayCertificate], *, partial: bool
) -> Certificate:
    problems = list(_problems(audit, dropped))
    problems += [
        f"{day.symbol} {day.day}: {day.stored_rows} rows stored, {day.sent_rows} sent"
        + ("" if day.stored_rows != day.sent_rows else ", checksums differ")
        for day in days
        if not day.green
    ]
    return Certificate(
        source=audit.source,
        epoch=audit.epoch,
        rows=audit.rows,
        distinct=audit.distinct,
        first_seq=audit.first_seq,
        last_seq=audit.last_seq,
        quarantined=audit.quarantined,
        dropped=dropped.rows,
        uncertified=0 if partial else max(0, audit.rows - sum(day.stored_rows for day in days)),
        green=not problems,
        problems=problems,
        days=days,
    )


def _problems(audit: EpochAudit, dropped: Dropped) -> Sequence[str]:
    problems: list[str] = []
    if audit.rows != audit.distinct:
        problems.append(f"{audit.rows - audit.distinct} rows are stored more than once")
    # Seqs count from 1 without holes; below the noted rows a month may be noted and not dropped yet.
    missing = max(audit.last_seq, dropped.last_seq) - audit.distinct - dropped.rows
    if missing > 0:
        problems.append(f"{missing} ticks are missing below seq {max(audit.last_seq, dropped.last_seq)}")
    return problems


def _nothing(source: str, epoch: int) -> EpochAudit:
    return EpochAudit(source=source, epoch=epoch, rows=0, distinct=0, first_seq=0, last_seq=0, quarantined=0)


def _iso_day(day: int) -> str:
    """Days since 1970-01-01 as YYYY-MM-DD; an absurd time may name a day no calendar has, which stays a number."""
    try:
        return (date(1970, 1, 1) + timedelta(days=day)).isoformat()
    except OverflowError:
        return str(day)
