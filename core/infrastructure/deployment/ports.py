"""The ports of a local deployment: fixed ones counted from a base, free ones for the embedded engines."""

import random
import socket
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from core.errors.exceptions import Conflict, Unavailable

HOST: Final = "127.0.0.1"
PORT_BASE: Final = 8_000
OFFSETS: Final[Mapping[str, int]] = {
    "gateway": 0,
    "bridge": 1,
    "worker-trading": 7,
    "worker-database": 8,
    "worker-chain": 9,
}
PORT_BASE_MAX: Final = 65_535 - max(OFFSETS.values())
ENGINE_PORTS: Final = range(20_000, 32_000)
"""Below every system's range for outgoing connections, so that a remembered port stays free."""
PICKS_MAX: Final = 200


def is_free(port: int, host: str = HOST) -> bool:
    """Say whether we could listen on `port` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _forbidden(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((HOST, port))
        except PermissionError:
            return True
        except OSError:
            return False
    return False


def require_free(ports: Mapping[str, int]) -> None:
    """Raise Conflict naming the first port that is taken. ports: process -> port."""
    for process, port in ports.items():
        if not is_free(port):
            why = "needs root" if _forbidden(port) else "is taken by another program"
            text = f"port {port} ({process}) {why}; choose others with --port-base N"
            raise Conflict(text, code="PORT_TAKEN")


def engine_port(remembered: int | None, avoid: Collection[int]) -> int:
    """Return `remembered` while it is free, else another free one outside `avoid`. Raises: Unavailable."""
    if remembered is not None and remembered not in avoid and is_free(remembered):
        return remembered
    for port in _candidates():
        if port not in avoid and is_free(port):
            return port
    raise Unavailable("no free port found for an embedded engine", code="NO_FREE_PORT")


def _candidates() -> Iterator[int]:
    for _ in range(PICKS_MAX):
        yield random.choice(ENGINE_PORTS)  # noqa: S311 - spreads deployments, guards nothing
