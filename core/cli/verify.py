"""`tickgate verify`: prove that every tick a connector sent is stored exactly once."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

import click

from core.cli.options import data_dir_option
from core.cli.settings import deployed_settings
from core.infrastructure.verification import certificates
from core.messages.certificates import Certificate

EPOCH_DAY: Final = date(1970, 1, 1)


@click.command(short_help="Prove that no tick is missing.")
@data_dir_option
@click.option("--source", help="Only this source.  [default: all]")
@click.option("--day", type=click.DateTime(["%Y-%m-%d"]), help="Only this day of the trade server's clock.")
def command(*, data_dir: Path | None, source: str | None, day: datetime | None) -> int:
    """Compare what the store holds with what the connectors sent; exit 0 when every certificate is green.

    For each source and epoch: the number of ticks, of distinct sequence numbers and the span of those must be
    one number, and rows and checksum of every symbol and day must be those the connector counted.
    """
    number = (day.replace(tzinfo=UTC).date() - EPOCH_DAY).days if day else None
    found = asyncio.run(certificates(deployed_settings(data_dir), source, number))
    for line in describe(found):
        click.echo(line)
    return 0 if all(certificate.green for certificate in found) else 1


def describe(found: Sequence[Certificate]) -> Iterator[str]:
    """Yield the certificates in words, the verdict last."""
    for certificate in found:
        yield from _describe(certificate)
    red = sum(not certificate.green for certificate in found)
    rows = sum(certificate.rows for certificate in found)
    if red:
        yield f"RED: {red} of {len(found)} certificates do not hold"
    elif rows:
        yield f"GREEN: {rows:,} ticks, each stored exactly once ({len(found)} of {len(found)} certificates hold)"
    else:
        yield "there are no ticks yet, so there is nothing to certify"


def _describe(certificate: Certificate) -> Iterator[str]:
    verdict = "GREEN" if certificate.green else "RED  "
    span = f"seq {certificate.first_seq:,} to {certificate.last_seq:,}" if certificate.rows else "empty"
    yield (
        f"{verdict}  {certificate.source}, epoch {certificate.epoch}: {certificate.rows:,} ticks, {span},"
        f" {len(certificate.days)} symbol-days compared with what was sent"
    )
    for problem in certificate.problems:
        yield f"       problem: {problem}"
    if certificate.quarantined:
        yield f"       {certificate.quarantined:,} of them in quarantine: stored, but not trusted"
    if certificate.dropped:
        yield f"       {certificate.dropped:,} older ones dropped by the retention policy"
    if certificate.uncertified:
        yield f"       {certificate.uncertified:,} ticks await the connector's next tally"
    for day in certificate.days:
        mark = "ok " if day.green else "BAD"
        checksum = day.stored_checksum
        yield f"       {mark}  {day.day}  {day.symbol:<12}  {day.stored_rows:>12,} rows  {checksum}"
