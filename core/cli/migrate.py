"""`tickgate migrate`: bring the stores' schemas forward, or say what that would do."""

import asyncio
import os
from pathlib import Path

import click

from core.cli.options import data_dir_option
from core.infrastructure.config_manager import FILE_VARIABLE, load_settings
from core.infrastructure.deployment.layout import layout_of
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


def deployed_settings(data_dir: Path | None) -> Settings:
    """Return a deployment's settings, or the environment's where none was ever started. Raises: Misconfigured."""
    file = layout_of(data_dir).settings_file
    if FILE_VARIABLE not in os.environ and file.exists():
        return load_settings({**os.environ, FILE_VARIABLE: str(file)})
    return load_settings()


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
