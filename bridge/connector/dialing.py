"""Where the bridge is and how it is reached: URL, TLS, and the pause between two attempts."""

import random
import ssl
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from core.errors.exceptions import Misconfigured
from core.messages.wire import PATH
from core.settings import ConnectorSettings

PAUSE_S: Final = 0.2
PAUSE_S_MAX: Final = 10.0
PAUSE_GROWTH: Final = 1.7


def address(settings: ConnectorSettings) -> tuple[str, ssl.SSLContext | None]:
    """Return the URL to dial and the TLS context for it.

    Raises:
        Misconfigured: not a WebSocket URL, plain text beyond this machine, or a CA file that cannot be read.
    """
    url = urlsplit(settings.bridge_url)
    if url.scheme not in {"ws", "wss"} or not url.hostname:
        raise Misconfigured(
            f"TICKGATE_CONNECTOR_BRIDGE_URL is no ws:// or wss:// URL: {settings.bridge_url!r}"
        )
    target = settings.bridge_url if url.path.strip("/") else settings.bridge_url.rstrip("/") + PATH
    if url.scheme == "ws":
        if not _is_loopback(url.hostname):
            raise Misconfigured(
                f"ticks and the token do not travel to {url.hostname} in plain text: use wss:// in"
                " TICKGATE_CONNECTOR_BRIDGE_URL",
                code="TLS_REQUIRED",
            )
        return target, None
    return target, _context(settings.tls_ca_file)


def _context(ca_file: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as e:
        raise Misconfigured(f"the CA file {ca_file} cannot be read", code="BAD_TLS") from e
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class Backoff:
    """Jittered pauses that grow from one failure to the next, so that many connectors do not come back at once."""

    def __init__(self) -> None:
        self._pause_s = PAUSE_S

    def reset(self) -> None:
        self._pause_s = PAUSE_S

    def next_s(self, at_least_ms: int = 0, longest_s: float = PAUSE_S_MAX) -> float:
        """Return how long to wait now. at_least_ms: what the bridge asked for."""
        pause_s = self._pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
        self._pause_s = min(self._pause_s * PAUSE_GROWTH, longest_s)
        return max(at_least_ms / 1_000, pause_s)
