"""`tickgate status`: show what runs."""

import json
from pathlib import Path

import click

from core.cli.options import data_dir_option
from core.cli.terminal import store_table, table
from core.infrastructure.deployment import health
from core.infrastructure.deployment.layout import layout_of


@click.command(short_help="Show what runs.")
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def command(*, data_dir: Path | None, as_json: bool) -> int:
    """Show every program of the last `up`: whether it runs, under which pid, on which port."""
    layout = layout_of(data_dir)
    reports, stores = health.report(layout), health.stores(layout)
    if as_json:
        rows = [{"name": r.name, "pid": r.pid, "port": r.port, "state": r.state} for r in reports]
        kept = [{"name": s.name, "keeper": s.keeper, "state": s.state, "problem": s.problem} for s in stores]
        click.echo(json.dumps({"processes": rows, "stores": kept}))
    elif reports:
        headers = ("process", "pid", "port", "state", "")
        click.echo(table(headers, [(r.name, r.pid, r.port, r.state, r.problem) for r in reports]))
        if stores:
            click.echo(f"\n{store_table(stores)}")
    else:
        click.echo(f"nothing was ever started in {layout.root}; start with `tickgate up`")
    return 0
