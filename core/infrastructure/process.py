"""What every process of the house does for itself: it does not outlive its supervisor."""

import ctypes
import os
import signal
import sys
from typing import Final

PR_SET_PDEATHSIG: Final = 1  # source: prctl(2)


def die_with_parent(signal_number: int = signal.SIGTERM) -> None:
    """Ask Linux to send `signal_number` when our parent dies, so that a killed supervisor leaves no orphan behind.

    Elsewhere this does nothing; there an orphan is found by the next `tickgate up`.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
    if os.getppid() != parent:
        # It died before we asked.
        os.kill(os.getpid(), signal_number)
