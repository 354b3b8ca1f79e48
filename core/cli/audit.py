"""`tickgate audit`: is the trail what it was, one event's proof, a stream written out."""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import click

from core.auditing.verification import Verdict
from core.cli.options import data_dir_option, json_option
from core.cli.settings import deployed_settings
from core.cli.terminal import table
from core.errors.exceptions import Invalid
from core.infrastructure import auditing

anchor_option = click.option(
    "--anchor", default="", help="Checkpoints elsewhere than set up: a file or s3://bucket/prefix."
)


@click.group(short_help="Verify the audit trail, prove an event, write it out.")
def command() -> None:
    """Look at the audit trail: every change of an order, a limit or a kill switch, chained and signed."""


@command.command()
@click.option("--stream", default="", help="Only this tenant's trail.")
@click.option("--file", "path", type=click.Path(dir_okay=False, path_type=Path), help="An export instead.")
@anchor_option
@data_dir_option
@json_option
def verify(*, stream: str, path: Path | None, anchor: str, data_dir: Path | None, as_json: bool) -> int:
    """Verify every event, every number and every checkpoint; name the first that is not what it was.

    What came after the last checkpoint is chained, but nobody outside vouches for it yet. Ends with 1 when something
    is wrong.
    """
    settings = deployed_settings(data_dir)
    if path is not None:
        found = auditing.verify_file(settings, path, anchor)
    else:
        found = asyncio.run(auditing.verify_streams(settings, stream, anchor))
    bad = [verdict for verdict in found if verdict.finding]
    if as_json:
        click.echo(json.dumps({"streams": [_fields(verdict) for verdict in found]}))
    elif found:
        _show(found)
    else:
        click.echo("nothing has happened yet")
    return 1 if bad else 0


@command.command()
@click.argument("stream")
@click.argument("seq", type=click.IntRange(1))
@anchor_option
@data_dir_option
def prove(*, stream: str, seq: int, anchor: str, data_dir: Path | None) -> int:
    """Print a proof that the event SEQ is in the trail STREAM, for somebody who has only our public key."""
    proof = asyncio.run(auditing.prove(deployed_settings(data_dir), stream, seq, anchor))
    click.echo(json.dumps(proof, indent=2))
    return 0


@command.command()
@click.argument("stream")
@click.option(
    "--to", "path", type=click.Path(dir_okay=False, path_type=Path), help="A file; else the output."
)
@data_dir_option
def export(*, stream: str, path: Path | None, data_dir: Path | None) -> int:
    """Write the trail STREAM out, a line an event; `verify --file` reads it."""
    settings = deployed_settings(data_dir)

    async def write() -> int:
        count = 0
        with _opened(path) if path else sys.stdout.buffer as file:
            async for line in auditing.export(settings, stream):
                count += file.write(line) > 0
            file.flush()
        return count

    if not asyncio.run(write()):
        # An empty file would look like a trail.
        if path:
            path.unlink()
        click.echo(f"there are no events of {stream!r}", err=True)
        return 1
    return 0


def _opened(path: Path) -> IO[bytes]:
    try:
        # Never over an older one: it may be the only proof that is left.
        return path.open("xb")
    except OSError as e:
        raise Invalid(f"{path} cannot be written: {e.strerror}", code="BAD_ARGUMENTS") from e


def _show(found: Sequence[Verdict]) -> None:
    rows = [
        (
            verdict.stream or "(the house)",
            verdict.events,
            verdict.anchored,
            "sound" if verdict.finding is None else f"event {verdict.finding.seq}: {verdict.finding.what}",
        )
        for verdict in found
    ]
    click.echo(table(("stream", "sound events", "vouched for outside", "verdict"), rows))


def _fields(verdict: Verdict) -> dict[str, object]:
    finding = verdict.finding
    return {
        "stream": verdict.stream,
        "events": verdict.events,
        "anchored": verdict.anchored,
        "finding": None if finding is None else {"seq": finding.seq, "what": finding.what},
    }
