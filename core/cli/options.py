"""What commands have in common: the options --data-dir and --json, and how a moment is written."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])


def data_dir_option(function: Function) -> Function:
    """Add --data-dir, also read from TICKGATE_DATA_DIR, as the parameter `data_dir: Path | None`."""
    return click.option(
        "--data-dir",
        envvar="TICKGATE_DATA_DIR",
        type=click.Path(file_okay=False, path_type=Path),
        help="Where everything is kept.  [default: the user's data directory; /var/lib/tickgate for root]",
    )(function)


def json_option(function: Function) -> Function:
    """Add --json as the parameter `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, help="For programs.")(function)


def when(at_ms: int | None) -> str | None:
    """Return a moment as people read it, in UTC."""
    if at_ms is None:
        return None
    return datetime.fromtimestamp(at_ms / 1_000, UTC).strftime("%Y-%m-%d %H:%MZ")
