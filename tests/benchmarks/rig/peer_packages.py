"""The peers' packages, pinned in peers.txt, in a virtual environment of their own.

They cannot share ours: arq wants an older redis than they do. Made on first use and kept for the next run.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

PINS = Path(__file__).parents[1] / "peers.txt"
INSTALL_TIMEOUT_S = 600


def peers_python() -> Path | None:
    """Return the interpreter that has the peers, or say on standard output why there is none."""
    digest = hashlib.sha256(PINS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = cache if os.access(cache, os.W_OK) else Path(tempfile.gettempdir())
    place = home / f"tickgate-peers-{digest}"
    python = place / "bin" / "python"
    complete = place / "complete"
    if complete.exists():
        return python
    print(f"installing the peers of {PINS.name} (once) ...", flush=True)
    try:
        subprocess.run(
            [sys.executable, "-m", "venv", "--clear", place], check=True, timeout=INSTALL_TIMEOUT_S
        )
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
        subprocess.run(
            [*pip, "-r", PINS], check=True, timeout=INSTALL_TIMEOUT_S, capture_output=True, text=True
        )
    except (OSError, subprocess.SubprocessError) as e:
        why = (getattr(e, "stderr", "") or str(e)).strip().splitlines()[-1:]
        print(f"peers skipped: they could not be installed ({' '.join(why)})", flush=True)
        return None
    complete.touch()
    return python
