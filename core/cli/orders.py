"""`tickgate orders`: where orders stand, for an operator who has no token at hand."""

import asyncio
import json
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from core.cli.options import data_dir_option, json_option, when
from core.cli.settings import deployed_settings
from core.cli.terminal import table
from core.infrastructure import order_operations
from core.model.ledger import OrderEntry, OrderEvent
from core.model.orders import OrderState

SHOWN_DEFAULT: Final = 100
SHOWN_MAX: Final = 10_000

tenant_option = click.option("--tenant", required=True, help="Whose orders.")


@click.group(short_help="List orders; show one with all that happened to it.")
def command() -> None:
    """Look at orders. Which ones need a person: `tickgate orders list --tenant NAME --state UNKNOWN`."""


@command.command("list")
@tenant_option
@click.option("--state", type=click.Choice([str(state) for state in OrderState]), help="Only those.")
@click.option("--account", help="Only this account's.")
@click.option("--limit", type=click.IntRange(1, SHOWN_MAX), default=SHOWN_DEFAULT, show_default=True)
@data_dir_option
@json_option
def list_(
    *, tenant: str, state: str | None, account: str | None, limit: int, data_dir: Path | None, as_json: bool
) -> int:
    """List a tenant's orders, the newest first."""
    settings = deployed_settings(data_dir)
    where = {name: value for name, value in (("state", state), ("account", account)) if value is not None}
    found = asyncio.run(order_operations.listed(settings, tenant, where, limit))
    if as_json:
        click.echo(json.dumps({"orders": [_fields(entry) for entry in found]}))
    elif found:
        headers = ("id", "account", "symbol", "side", "type", "volume", "filled", "state", "code", "updated")
        click.echo(table(headers, [_row(entry) for entry in found]))
    else:
        click.echo(f"{tenant} has no such orders" if where else f"{tenant} has no orders")
    return 0


@command.command()
@click.argument("order_id", metavar="ID")
@tenant_option
@data_dir_option
def show(*, order_id: str, tenant: str, data_dir: Path | None) -> int:
    """Show an order and all that happened to it, as JSON."""
    entry, events = asyncio.run(order_operations.shown(deployed_settings(data_dir), tenant, order_id))
    told = [_event(event) for event in events]
    click.echo(json.dumps({**_fields(entry), "events": told}, indent=2))
    return 0


def _row(entry: OrderEntry) -> tuple[object, ...]:
    order = entry.order
    codes = entry.code or " ".join(denial.code for denial in entry.denials)
    return (
        order.id,
        order.account,
        order.symbol,
        order.side,
        order.type,
        order.volume,
        entry.filled_volume,
        entry.state,
        codes or None,
        when(entry.updated_at_ms),
    )


def _fields(entry: OrderEntry) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(entry)
    return {**fields.pop("order"), **fields}


def _event(event: OrderEvent) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(event)
    return fields
