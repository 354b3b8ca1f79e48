"""Room for connections: the limit on open files of a serving process. Not for the connector: it runs on Windows."""

import resource
from typing import Final

FILES_KEPT: Final = 256
"""Of a process's open files, for everything but its callers."""


def room_for_connections(wanted: int) -> int:
    """Raise the soft limit on open files for `wanted` connections; return how many there is room for.

    The soft limit is 1,024 on most machines for the sake of select(), which nothing here uses; a server that runs out
    of files while it accepts is deaf until somebody hangs up.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + FILES_KEPT
    if resource.RLIM_INFINITY not in (soft, hard):
        needed = min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    return max(1, min(wanted, needed - FILES_KEPT))
