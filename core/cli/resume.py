"""`tickgate resume`: release a kill switch."""

import asyncio
from pathlib import Path

import click

from core.cli.options import data_dir_option
from core.cli.settings import deployed_settings
from core.errors.exceptions import NotFound
from core.infrastructure import halting


@click.command(short_help="Release a kill switch.")
@click.argument("switch_id", metavar="ID")
@data_dir_option
def command(*, switch_id: str, data_dir: Path | None) -> int:
    """Release the kill switch ID, as `tickgate halt` shows it. What it ended stays ended."""
    settings = deployed_settings(data_dir)
    found = next((one for one in asyncio.run(halting.engaged(settings)) if one.id == switch_id), None)
    if found is None:
        raise NotFound(f"no kill switch {switch_id!r} is engaged", code="KILL_SWITCH_NOT_FOUND")
    asyncio.run(halting.resume(settings, found.tenant, switch_id))
    click.echo(f"released {switch_id}")
    return 0
