"""The settings a command works with: those of the deployment in the data directory, or the environment's."""

import os
from pathlib import Path

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
