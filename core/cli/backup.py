"""`tickgate backup`: write all stores down while everybody works, or prove that a backup is whole."""

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path

import click

from core.cli.options import data_dir_option
from core.cli.settings import deployed_settings
from core.cli.terminal import Progress
from core.errors.exceptions import Invalid
from core.infrastructure.backups.making import back_up, check
from core.infrastructure.backups.manifest import Manifest
from core.infrastructure.backups.sealing import read_secret
from core.infrastructure.backups.vaults import vault_at
from core.infrastructure.deployment.layout import layout_of


@click.command(short_help="Write all stores down while everybody works.")
@data_dir_option
@click.option(
    "--to", "place", help="A directory or s3://bucket/prefix; the backup gets a place of its own below it."
)
@click.option("--verify", "whole", help="Only prove that the backup at this directory or address is whole.")
@click.option(
    "--key-file",
    envvar="TICKGATE_BACKUP_KEY_FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Encrypt with the 32 bytes, or the passphrase, in this file.  [or: TICKGATE_BACKUP_PASSPHRASE]",
)
def command(*, data_dir: Path | None, place: str | None, whole: str | None, key_file: Path | None) -> int:
    """Write a consistent backup of all stores, and read it back.

    Signing keys and credentials of the data directory go with it only if it is encrypted.
    """
    if (place is None) == (whole is None):
        raise Invalid("either --to or --verify says what to do")
    secret = read_secret(key_file)
    began = time.monotonic()
    with Progress() as progress:
        if whole is not None:
            manifest, _ = asyncio.run(check(vault_at(whole), secret, progress))
            address = whole
        else:
            settings, layout = deployed_settings(data_dir), layout_of(data_dir)
            stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
            vault = vault_at(f"{place}".rstrip("/") + f"/tickgate-{stamp}")
            address = vault.address
            own = layout if layout.settings_file.exists() else None
            manifest = asyncio.run(back_up(settings, vault, secret, own, progress))
    click.echo(summary(address, manifest, time.monotonic() - began))
    return 0


def summary(address: str, manifest: Manifest, seconds: float) -> str:
    """Say in a line what a backup is."""
    sealed = "encrypted" if manifest.sealed else "not encrypted"
    return (
        f"{address}: {manifest.rows:,} rows, {manifest.bytes:,} bytes, {sealed}, as of {manifest.started_at}"
        f" ({seconds:.1f} s)"
    )
