"""`tickgate down`: stop everything, in order."""

from pathlib import Path

import click

from core.cli.options import data_dir_option
from core.infrastructure.deployment import shutdown
from core.infrastructure.deployment.layout import layout_of


@click.command(short_help="Stop everything, in order.")
@data_dir_option
def command(*, data_dir: Path | None) -> int:
    """Stop everything: connectors first, then the services, then the engines. Safe to repeat."""
    layout = layout_of(data_dir)
    if shutdown.stop(layout, click.echo):
        click.echo("stopped")
    else:
        click.echo(f"nothing runs in {layout.root}")
    return 0
