"""The settings a command works with: those of the deployment in the data directory, or the environment's."""

import logging
import os
import sys
from pathlib import Path

import structlog

from core.errors.exceptions import Unavailable
from core.infrastructure.config_manager import FILE_VARIABLE, load_settings
from core.infrastructure.deployment.layout import layout_of
from core.infrastructure.deployment.supervision import Supervisor
from core.settings import Settings


def deployed_settings(data_dir: Path | None) -> Settings:
    """Return a deployment's settings, or the environment's where none ever was.

    Raises:
        Misconfigured: a setting is wrong. Unavailable: the deployment does not run.
    """
    keep_logs_off_the_output()
    layout = layout_of(data_dir)
    if FILE_VARIABLE in os.environ or not layout.settings_file.exists():
        return load_settings()
    try:
        Supervisor(layout.supervisor_socket).pid()
    except Unavailable as e:
        raise Unavailable(
            f"nothing runs in {layout.root}; start with `tickgate up`", code="NOT_RUNNING"
        ) from e
    return load_settings({**os.environ, FILE_VARIABLE: str(layout.settings_file)})


def keep_logs_off_the_output() -> None:
    """What a command prints is for people or programs; what goes wrong meanwhile is on the other stream."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
