"""`tickgate version`: print the version."""

from importlib.metadata import version

import click


@click.command(short_help="Print the version.")
def command() -> int:
    """Print the version."""
    click.echo(f"tickgate {version('tickgate')}")
    return 0
