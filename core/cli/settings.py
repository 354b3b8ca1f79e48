"""The settings a command works with: those of the deployment in the data directory, or the environment's."""

import os
from pathlib import Path

from core.infrastructure.config_manager import FILE_VARIABLE, load_settings
from core.infrastructure.deployment.layout import layout_of
from core.settings import Settings


def deployed_settings(data_dir: Path | None) -> Settings:
    """Return a deployment's settings, or the environment's where none ever was. Raises: Misconfigured."""
    file = layout_of(data_dir).settings_file
    if FILE_VARIABLE not in os.environ and file.exists():
        return load_settings({**os.environ, FILE_VARIABLE: str(file)})
    return load_settings()
