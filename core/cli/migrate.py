"""`tickgate migrate`: bring the stores' schemas forward, or say what that would do."""

import asyncio
from pathlib import Path

import click

from core.cli.options import data_dir_option
from core.cli.settings import deployed_settings
from core.infrastructure.migrator import migrate, plan
from core.settings import Settings


@click.command(short_help="Bring the stores' schemas forward.")
@data_dir_option
@click.option("--plan", "only_plan", is_flag=True, help="Only say what would be applied.")
def command(*, data_dir: Path | None, only_plan: bool) -> int:
    """Apply the migrations that are pending, each once, under a lock.

    Reads the settings of the deployment in the data directory, or, where there is none, of the environment.
    """
    settings = deployed_settings(data_dir)
    applied = asyncio.run(_plan(settings) if only_plan else _migrate(settings))
    if not applied:
        click.echo("nothing to apply")
    return 0


async def _plan(settings: Settings) -> int:
    names = [f"{store} {step}" for store, steps in (await plan(settings)).items() for step in steps]
    for name in names:
        click.echo(f"would apply {name}")
    return len(names)


async def _migrate(settings: Settings) -> int:
    count = 0
    async for step in migrate(settings):
        click.echo(f"applied {step}")
        count += 1
    return count
