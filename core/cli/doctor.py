"""`tickgate doctor`: look for what could go wrong here, and say what to do."""

import json
from pathlib import Path

import click

from core.cli.options import data_dir_option
from core.infrastructure.deployment.examination import Level, Observation, examine
from core.infrastructure.deployment.layout import layout_of


@click.command(short_help="Look for what could go wrong here, and say what to do.")
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def command(*, data_dir: Path | None, as_json: bool) -> int:
    """Examine this machine and what runs on it; exit 1 when something fails."""
    observations: list[Observation] = []
    for observation in examine(layout_of(data_dir)):
        observations.append(observation)
        if not as_json:
            click.echo(f"{observation.level:<5} {observation.subject:<28} {observation.found}")
            if observation.advice:
                click.echo(f"{'':<5} {'':<28} -> {observation.advice}")
    if as_json:
        click.echo(json.dumps({"observations": [_fields(observation) for observation in observations]}))
    return 1 if any(observation.level is Level.FAIL for observation in observations) else 0


def _fields(observation: Observation) -> dict[str, str]:
    return {
        "level": observation.level,
        "subject": observation.subject,
        "found": observation.found,
        "advice": observation.advice,
    }
