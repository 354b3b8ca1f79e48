"""`tickgate restore`: bring a backup back, into a data directory or into the stores of the settings."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from core.cli.backup import summary
from core.cli.settings import keep_logs_off_the_output
from core.cli.terminal import Progress
from core.errors.exceptions import Conflict
from core.infrastructure.backups.restoring import (
    Backup,
    data_directory_is_used,
    require_fit,
    restore,
    restore_belongings,
)
from core.infrastructure.backups.sealing import read_secret
from core.infrastructure.backups.vaults import Vault, vault_at
from core.infrastructure.config_manager import load_settings
from core.infrastructure.deployment.engines_alone import engines_alone
from core.infrastructure.deployment.layout import Layout, create, layout_of
from core.infrastructure.deployment.lock import exclusive
from core.infrastructure.deployment.orphans import find_orphans, find_supervisor
from core.settings import Secret, Settings


@click.command(short_help="Bring a backup back.")
@click.option("--from", "place", required=True, help="The backup: its directory or s3:// address.")
@click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    help="The data directory to fill.  [default: the stores of the settings in the environment]",
)
@click.option(
    "--key-file",
    envvar="TICKGATE_BACKUP_KEY_FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The key it was encrypted with.  [or: TICKGATE_BACKUP_PASSPHRASE]",
)
@click.option("--replace", is_flag=True, help="Delete what the stores hold now.")
def command(*, place: str, into: Path | None, key_file: Path | None, replace: bool) -> int:
    """Prove that a backup is whole, and fill empty stores with it; nothing may run on them meanwhile."""
    keep_logs_off_the_output()
    vault, secret = vault_at(place), read_secret(key_file)
    began = time.monotonic()
    with Progress() as progress:
        if into is None:
            settings = load_settings()
            backup = asyncio.run(require_fit(settings, vault, secret, progress))
            asyncio.run(restore(settings, backup, progress, replace=replace))
        else:
            backup = _into_directory(layout_of(into), vault, secret, progress, replace=replace)
    click.echo(summary(place, backup.manifest, time.monotonic() - began))
    return 0


def _into_directory(
    layout: Layout, vault: Vault, secret: Secret | None, progress: Progress, *, replace: bool
) -> Backup:
    _require_stopped(layout)
    if data_directory_is_used(layout) and not replace:
        raise Conflict(f"{layout.root} holds data; --replace deletes it", code="TARGET_NOT_EMPTY")
    # Before anything is made or touched; the stores of a data directory are the embedded ones.
    backup = asyncio.run(require_fit(Settings(), vault, secret, progress))
    create(layout)
    with exclusive(layout.lock_file), _nothing_prepared(layout):
        _require_stopped(layout)
        with engines_alone(layout, progress) as settings:
            asyncio.run(restore(settings, backup, progress, replace=replace))
        if files := asyncio.run(restore_belongings(layout, backup)):
            progress.done(f"restored {files} files with keys and credentials")
    return backup


def _require_stopped(layout: Layout) -> None:
    if layout.root.exists() and (find_supervisor(layout) or find_orphans(layout)):
        raise Conflict(
            f"processes are running in {layout.root}; stop them with `tickgate down`",
            code="RESTORE_WHILE_RUNNING",
        )


@contextmanager
def _nothing_prepared(layout: Layout) -> Iterator[None]:
    """Let the next start take nothing for granted, however this ends."""
    layout.prepared_file.unlink(missing_ok=True)
    yield
