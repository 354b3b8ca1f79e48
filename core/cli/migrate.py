"""`tickgate migrate`: bring the stores' schemas forward, or say what that would do."""

import asyncio
from pathlib import Path

import click

from core.cli.options import data_dir_option
from core.cli.settings import deployed_settings
from core.infrastructure.migrator import Standing, migrate, plan
from core.settings import Settings


@click.command(short_help="Bring the stores' schemas forward.")
@data_dir_option
@click.option("--plan", "only_plan", is_flag=True, help="Only say what would be applied.")
def command(*, data_dir: Path | None, only_plan: bool) -> int:
    """Apply the migrations that are pending, each once, under a lock.

    Reads the settings of the deployment in the data directory, or, where there is none, of the environment. What was
    interrupted is finished by running it again.
    """
    settings = deployed_settings(data_dir)
    applied = asyncio.run(_plan(settings) if only_plan else _migrate(settings))
    if not applied:
        click.echo("nothing to apply")
    return 0


async def _plan(settings: Settings) -> int:
    standings = await plan(settings)
    width = max(len(standing.store) for standing in standings)
    for standing in standings:
        click.echo(f"{standing.store:{width}}  {_where(standing)}")
        for step in standing.missing:
            click.echo(f"{'':{width}}  would apply {step.number:04} {step.name}")
    return sum(len(standing.missing) for standing in standings)


def _where(standing: Standing) -> str:
    if standing.stand_in:
        return f"is not set up; {standing.stand_in} stands in"
    return "is new" if standing.at is None else f"is at step {standing.at}"


async def _migrate(settings: Settings) -> int:
    count = 0
    async for step in migrate(settings, _say_waiting):
        click.echo(f"applied {step}")
        count += 1
    return count


def _say_waiting() -> None:
    click.echo("another migration is running; waiting for it to end", err=True)
