"""What commands have in common: the --data-dir option."""

from collections.abc import Callable
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
