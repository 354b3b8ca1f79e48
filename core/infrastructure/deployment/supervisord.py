"""The supervising process: supervisord, tied to the life of the `tickgate up` that started it."""

import os
import signal
import sys
import threading

from core.infrastructure.deployment.supervision import DETACH


def main() -> None:
    """Run supervisord with the arguments given, until it is told to stop or its parent is gone."""
    from supervisor.supervisord import main as supervise  # noqa: PLC0415 - a driver only this process needs

    threading.Thread(target=_follow_parent, daemon=True).start()
    supervise(sys.argv[1:])


def _follow_parent() -> None:
    """Stop everything in order when the parent ends, even by kill -9, unless it has let go of us.

    The kernel closes the parent's end of our standard input whatever it dies of, on every system.
    """
    if os.read(0, 1) != DETACH:
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
