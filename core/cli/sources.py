"""`tickgate sources`: feeds of ticks, and the tokens their connectors show."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from core.cli.options import data_dir_option, json_option, when
from core.cli.settings import deployed_settings
from core.cli.terminal import table
from core.infrastructure import source_operations
from core.model.sources import SourceState
from core.settings import Secret


def tenant_option(function: Callable[..., int]) -> Callable[..., int]:
    """Add --tenant, whose source it is."""
    return click.option("--tenant", required=True, help="Whose source it is.")(function)


@click.group(short_help="Add, list and close sources of ticks; give them new tokens.")
def command() -> None:
    """Keep sources: feeds of ticks, each with the token its connector shows.

    A token is printed once and kept nowhere; whoever lost it rotates it.
    """


@command.command()
@click.argument("label")
@tenant_option
@click.option("--title", default="", help="What people call it.")
@data_dir_option
@json_option
def add(*, label: str, tenant: str, title: str, data_dir: Path | None, as_json: bool) -> int:
    """Make a source whose name begins with LABEL and print its name and token."""
    settings = deployed_settings(data_dir)
    _print(*asyncio.run(source_operations.add(settings, tenant, label, title)), as_json=as_json)
    return 0


@command.command("list")
@tenant_option
@data_dir_option
@json_option
def list_(*, tenant: str, data_dir: Path | None, as_json: bool) -> int:
    """List a tenant's sources, closed ones too."""
    found = asyncio.run(source_operations.listed(deployed_settings(data_dir), tenant))
    if as_json:
        click.echo(json.dumps({"sources": [_fields(state) for state in found]}))
    elif found:
        headers = ("source", "title", "connected", "last seen", "last seq", "created", "closed")
        rows = [
            (
                one.name,
                one.title or None,
                "yes" if one.connected else "no",
                when(one.last_seen_at_ms),
                one.last_seq,
                when(one.created_at_ms),
                when(one.closed_at_ms),
            )
            for one in found
        ]
        click.echo(table(headers, rows))
    else:
        click.echo(f"{tenant} has no sources")
    return 0


@command.command()
@click.argument("name")
@tenant_option
@data_dir_option
@json_option
def rotate(*, name: str, tenant: str, data_dir: Path | None, as_json: bool) -> int:
    """Give a source another token and print it; whoever shows the one before is cut off within seconds."""
    settings = deployed_settings(data_dir)
    _print(*asyncio.run(source_operations.rotate(settings, tenant, name)), as_json=as_json)
    return 0


@command.command()
@click.argument("name")
@tenant_option
@data_dir_option
def close(*, name: str, tenant: str, data_dir: Path | None) -> int:
    """Close a source for good: its connector is cut off, its ticks stay."""
    asyncio.run(source_operations.close(deployed_settings(data_dir), tenant, name))
    click.echo(f"{name} is closed")
    return 0


def _print(state: SourceState, token: Secret, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({**_fields(state), "token": token.reveal()}))
    else:
        click.echo(f"source  {state.name}\ntoken   {token.reveal()}")
        click.echo("keep it: it is not shown again", err=True)


def _fields(state: SourceState) -> dict[str, Any]:
    return asdict(state)
