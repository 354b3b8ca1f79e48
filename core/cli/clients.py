"""`tickgate clients`: who may ask for access tokens."""

import asyncio
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from core.cli.options import data_dir_option, json_option, when
from core.cli.settings import deployed_settings
from core.cli.terminal import table
from core.infrastructure import provisioning
from core.infrastructure.deployment.belongings import replace_credentials
from core.infrastructure.deployment.layout import layout_of
from core.model.principals import Scope

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def _name(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not NAME.fullmatch(value):
        raise click.BadParameter("letters, digits, dots, dashes and underscores, at most 63")
    return value


@click.group(short_help="Add, list, disable API clients and rotate their secrets.")
def command() -> None:
    """Keep the clients that may ask POST /oauth/token for access tokens.

    A secret is printed once and kept nowhere; whoever lost it rotates it.
    """


@command.command()
@click.argument("client_id", callback=_name)
@click.option("--tenant", required=True, callback=_name, help="Whose data it may see.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice([str(scope) for scope in Scope]),
    help="What it may do; again for more.  [default: everything]",
)
@data_dir_option
@json_option
def add(*, client_id: str, tenant: str, scopes: Sequence[str], data_dir: Path | None, as_json: bool) -> int:
    """Add a client and print its secret."""
    allowed = sorted(scopes or [str(scope) for scope in Scope])
    secret = asyncio.run(provisioning.add_client(deployed_settings(data_dir), client_id, tenant, allowed))
    if as_json:
        fields = {"client_id": client_id, "client_secret": secret.reveal(), "tenant": tenant}
        click.echo(json.dumps({**fields, "scopes": allowed}))
    else:
        click.echo(f"client_id      {client_id}\nclient_secret  {secret.reveal()}")
        click.echo("keep it: it is not shown again", err=True)
    return 0


@command.command("list")
@data_dir_option
@json_option
def list_(*, data_dir: Path | None, as_json: bool) -> int:
    """List every client."""
    found = asyncio.run(provisioning.list_clients(deployed_settings(data_dir)))
    if as_json:
        rows = [
            {
                "client_id": client.client_id,
                "tenant": client.tenant,
                "scopes": sorted(client.scopes),
                "created_at_ms": client.created_at_ms,
                "disabled_at_ms": client.disabled_at_ms,
            }
            for client in found
        ]
        click.echo(json.dumps({"clients": rows}))
    else:
        headers = ("client", "tenant", "created", "disabled", "scopes")
        shown = [
            (c.client_id, c.tenant, when(c.created_at_ms), when(c.disabled_at_ms), " ".join(sorted(c.scopes)))
            for c in found
        ]
        click.echo(table(headers, shown) if shown else "there are no clients yet")
    return 0


@command.command()
@click.argument("client_id")
@data_dir_option
def disable(*, client_id: str, data_dir: Path | None) -> int:
    """Let a client in no more; its tokens, refresh tokens and keys end at once."""
    asyncio.run(provisioning.disable_client(deployed_settings(data_dir), client_id))
    click.echo(f"{client_id} is disabled")
    return 0


@command.command("rotate-secret")
@click.argument("client_id")
@click.option(
    "--revoke", is_flag=True, help="Also end its tokens, refresh tokens and keys: the old secret has leaked."
)
@data_dir_option
@json_option
def rotate_secret(*, client_id: str, revoke: bool, data_dir: Path | None, as_json: bool) -> int:
    """Give a client a new secret and print it; the old one is good no more.

    Tokens it was given before stay good until they end, 15 minutes at most, unless --revoke says otherwise.
    """
    settings = deployed_settings(data_dir)
    secret = asyncio.run(provisioning.rotate_client_secret(settings, client_id, revoke=revoke))
    layout = layout_of(data_dir)
    if replace_credentials(layout, client_id, secret.reveal()):
        click.echo(f"{layout.credentials_file} has the new secret", err=True)
    if as_json:
        click.echo(json.dumps({"client_id": client_id, "client_secret": secret.reveal()}))
    else:
        click.echo(f"client_id      {client_id}\nclient_secret  {secret.reveal()}")
        click.echo("keep it: it is not shown again", err=True)
    return 0
