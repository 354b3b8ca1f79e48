"""`tickgate keys`: API keys, for callers that cannot ask for tokens."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from core.cli.options import data_dir_option, json_option, when
from core.cli.settings import deployed_settings
from core.cli.terminal import table
from core.infrastructure import provisioning
from core.model.keys import GRACE_MINUTES_MAX, NAME_LENGTH_MAX, ApiKey
from core.model.principals import Scope
from core.settings import Secret

DAYS_MAX: Final = 366
DAY_S: Final = 86_400


def _name(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not value.isprintable() or not 1 <= len(value) <= NAME_LENGTH_MAX:
        raise click.BadParameter(f"1 to {NAME_LENGTH_MAX} printable characters")
    return value


@click.group(short_help="Add, list, rotate and revoke API keys.")
def command() -> None:
    """Keep API keys. A key is sent as `Authorization: Bearer tgk_...` or `X-API-Key: tgk_...`.

    A secret is printed once and kept nowhere; whoever lost it rotates it.
    """


@command.command()
@click.option("--client", "client_id", required=True, help="Whose key it is; it never may do more.")
@click.option("--name", required=True, callback=_name, help="What it is for.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice([str(scope) for scope in Scope]),
    help="What it may do; again for more.  [default: all the client may]",
)
@click.option(
    "--days",
    type=click.IntRange(1, DAYS_MAX),
    default=90,
    show_default=True,
    help="After so many days it ends by itself.",
)
@data_dir_option
@json_option
def add(
    *, client_id: str, name: str, scopes: Sequence[str], days: int, data_dir: Path | None, as_json: bool
) -> int:
    """Make a key and print it."""
    life_s = days * DAY_S
    settings = deployed_settings(data_dir)
    key, secret = asyncio.run(provisioning.add_key(settings, client_id, name, scopes, life_s))
    _print(key, secret, as_json=as_json)
    return 0


@command.command("list")
@click.option("--tenant", required=True, help="Whose keys.")
@data_dir_option
@json_option
def list_(*, tenant: str, data_dir: Path | None, as_json: bool) -> int:
    """List a tenant's keys, revoked and expired ones too."""
    found = asyncio.run(provisioning.list_keys(deployed_settings(data_dir), tenant))
    if as_json:
        click.echo(json.dumps({"keys": [_fields(key) for key in found]}))
    else:
        headers = ("id", "name", "owner", "prefix", "expires", "last used", "revoked", "scopes")
        shown = [
            (
                key.id,
                key.name,
                key.subject,
                f"tgk_{key.prefix}",
                when(key.expires_at_ms),
                when(key.last_used_at_ms),
                when(key.revoked_at_ms),
                " ".join(sorted(key.scopes)),
            )
            for key in found
        ]
        click.echo(table(headers, shown) if shown else f"{tenant} has no keys")
    return 0


@command.command()
@click.argument("key_id")
@click.option(
    "--grace-minutes",
    type=click.IntRange(0, GRACE_MINUTES_MAX),
    default=0,
    show_default=True,
    help="How long the old secret stays good beside the new.",
)
@data_dir_option
@json_option
def rotate(*, key_id: str, grace_minutes: int, data_dir: Path | None, as_json: bool) -> int:
    """Give a key a new secret and print it."""
    settings = deployed_settings(data_dir)
    key, secret = asyncio.run(provisioning.rotate_key(settings, key_id, grace_minutes * 60))
    _print(key, secret, as_json=as_json)
    return 0


@command.command()
@click.argument("key_id")
@data_dir_option
def revoke(*, key_id: str, data_dir: Path | None) -> int:
    """Revoke a key and every key made with it, at once."""
    asyncio.run(provisioning.revoke_key(deployed_settings(data_dir), key_id))
    click.echo(f"{key_id} is revoked")
    return 0


def _print(key: ApiKey, secret: Secret, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({**_fields(key), "secret": secret.reveal()}))
    else:
        click.echo(f"id       {key.id}\nsecret   {secret.reveal()}\nexpires  {when(key.expires_at_ms)}")
        click.echo("keep it: it is not shown again", err=True)


def _fields(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "tenant": key.tenant,
        "name": key.name,
        "subject": key.subject,
        "scopes": sorted(key.scopes),
        "prefix": key.prefix,
        "created_at_ms": key.created_at_ms,
        "rotated_at_ms": key.rotated_at_ms,
        "expires_at_ms": key.expires_at_ms,
        "last_used_at_ms": key.last_used_at_ms,
        "revoked_at_ms": key.revoked_at_ms,
    }
