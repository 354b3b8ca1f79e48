"""`tickgate jobs`: queues, and jobs that failed for good."""

import asyncio
import json
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from core.cli.options import data_dir_option, json_option, when
from core.cli.settings import deployed_settings
from core.cli.terminal import table
from core.errors.exceptions import Invalid
from core.infrastructure import job_operations
from core.messages.dead_letters import DeadLetter, request_of
from core.settings import Settings

SHOWN_DEFAULT: Final = 100
SHOWN_MAX: Final = 10_000


@click.group(short_help="Show queues and dead letters; ask failed jobs again.")
def command() -> None:
    """Look at queues and at dead letters: jobs that failed for good, of every tenant and of the system itself."""


@command.command()
@data_dir_option
@json_option
def queues(*, data_dir: Path | None, as_json: bool) -> int:
    """Show how every queue stands."""
    found = asyncio.run(job_operations.standings(deployed_settings(data_dir)))
    if as_json:
        click.echo(json.dumps({"queues": [msgspec.to_builtins(one) for one in found]}))
        return 0
    headers = ("queue", "depth", "oldest s", "in progress", "workers", "dead letters waiting")
    rows = [
        (o.name, o.depth, o.oldest_age_s, o.in_progress, o.workers_alive, o.dead_letters_waiting)
        for o in found
    ]
    click.echo(table(headers, rows))
    return 0


@command.command()
@click.option("--limit", type=click.IntRange(1, SHOWN_MAX), default=SHOWN_DEFAULT, show_default=True)
@data_dir_option
@json_option
def dead(*, limit: int, data_dir: Path | None, as_json: bool) -> int:
    """List dead letters, the youngest first."""
    found = asyncio.run(job_operations.dead_letters(deployed_settings(data_dir), limit))
    if as_json:
        click.echo(json.dumps({"dead_letters": [_fields(letter) for letter in found]}))
    elif found:
        headers = ("id", "failed", "function", "tenant", "attempts", "code", "fingerprint", "state")
        rows = [
            (
                letter.id,
                when(letter.last_failed_at_ms),
                letter.function,
                letter.tenant or "(system)",
                letter.attempts,
                letter.code,
                letter.fingerprint,
                letter.state,
            )
            for letter in found
        ]
        click.echo(table(headers, rows))
    else:
        click.echo("there are no dead letters")
    return 0


@command.command()
@click.argument("letter_id", metavar="ID")
@data_dir_option
def show(*, letter_id: str, data_dir: Path | None) -> int:
    """Show all there is of a dead letter, as JSON."""
    letter = asyncio.run(job_operations.dead_letter(deployed_settings(data_dir), letter_id))
    click.echo(json.dumps(_fields(letter), indent=2))
    return 0


@command.command()
@click.argument("letter_id", metavar="ID", required=False)
@click.option("--all", "everything", is_flag=True, help="Every one that is still dead.")
@data_dir_option
def replay(*, letter_id: str | None, everything: bool, data_dir: Path | None) -> int:
    """Ask the job of a dead letter again, or all of them."""
    if everything == (letter_id is not None):
        raise Invalid("name one dead letter, or say --all")
    settings = deployed_settings(data_dir)
    if letter_id is None:
        return asyncio.run(_replay_all(settings))
    letter = asyncio.run(job_operations.replay_one(settings, letter_id))
    click.echo(f"{letter.id} is asked again as job {letter.replay_job_id}")
    return 0


async def _replay_all(settings: Settings) -> int:
    failed = asked = 0
    async for one in job_operations.replay_all(settings):
        if isinstance(one, DeadLetter):
            asked += 1
            click.echo(f"{one.id} is asked again as job {one.replay_job_id}")
        else:
            failed += 1
            click.echo(f"{one[0]} is left: {one[1]}", err=True)
    if not asked and not failed:
        click.echo("there are no dead letters to ask again")
    return 1 if failed else 0


def _fields(letter: DeadLetter) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(letter)
    del fields["job"]
    request = request_of(letter)
    return {**fields, "request": None if request is None else json.loads(bytes(request))}
