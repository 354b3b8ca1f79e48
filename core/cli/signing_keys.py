"""`tickgate signing-keys`: the keys that sign access tokens."""

import json
from collections.abc import Sequence
from pathlib import Path

import click

from core.cli.options import data_dir_option, json_option, when
from core.cli.settings import deployed_settings
from core.cli.terminal import table
from core.errors.exceptions import Misconfigured
from core.infrastructure import signing_keys
from core.infrastructure.signing_keys import Key


@click.group(short_help="Rotate and list the keys that sign access tokens.")
def command() -> None:
    """Keep the keys that sign access tokens. Running gateways and verifiers notice a change within seconds."""


@command.command()
@data_dir_option
@json_option
def rotate(*, data_dir: Path | None, as_json: bool) -> int:
    """Sign with the next key from now on, publish a new next one, and drop those nobody needs any more.

    No token becomes invalid and nothing has to be restarted. It is refused while the next key has not been published
    for five minutes, the time others may keep a copy of the key set. Where there is only one key, the first call
    publishes the next one, and a second, five minutes later, signs with it. A key that signed stays published for 17
    minutes, longer than its last token lives, and leaves with the first rotation after that.
    """
    _show(signing_keys.rotate(*_files(data_dir)), as_json=as_json)
    return 0


@command.command("list")
@data_dir_option
@json_option
def list_(*, data_dir: Path | None, as_json: bool) -> int:
    """List the keys: the one that signs, the next, and those that signed before."""
    _show(signing_keys.read_keys(_files(data_dir)[0]), as_json=as_json)
    return 0


def _files(data_dir: Path | None) -> tuple[Path, Path]:
    auth = deployed_settings(data_dir).auth
    if not auth.key_file or not auth.jwks_file:
        raise Misconfigured("TICKGATE_AUTH_KEY_FILE and TICKGATE_AUTH_JWKS_FILE must name the key sets")
    return Path(auth.key_file), Path(auth.jwks_file)


def _show(keys: Sequence[Key], *, as_json: bool) -> None:
    rows = [
        (str(key["kid"]), _role(key, first=not number), key.get("published_at"))
        for number, key in enumerate(keys)
    ]
    if as_json:
        fields = [{"kid": kid, "role": role, "published_at_s": at_s} for kid, role, at_s in rows]
        click.echo(json.dumps({"keys": fields}))
        return
    shown = [(kid, role, when(None if at_s is None else at_s * 1_000)) for kid, role, at_s in rows]
    click.echo(table(("key", "role", "published"), shown))


def _role(key: Key, *, first: bool) -> str:
    if "d" not in key:
        return "retired"
    return "signing" if first else "next"
