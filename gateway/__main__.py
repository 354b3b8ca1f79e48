"""`python -m gateway`: serve the HTTP front door."""

import logging
import sys
from pathlib import Path
from typing import Any, Final

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops, RuntimeModes
from granian.http import HTTP1Settings, HTTP2Settings

from core.errors.exceptions import TickgateError
from core.infrastructure.config_manager import load_settings
from core.infrastructure.open_files import room_for_connections
from core.infrastructure.process import die_with_parent
from core.settings import GatewaySettings
from core.telemetry.logs import configure_logging
from gateway.limits import declared
from gateway.perimeter import check_exposure, perimeter
from gateway.signing import load_signer

APPLICATION: Final = "gateway.app:create_app"
HEADER_TIMEOUT_MS: Final = 10_000
"""For a request's head to be complete; also how long an idle connection is kept."""
HEAD_BYTES_MAX: Final = 64 * 1024
"""Of a request's line and headers, 100 of them at most; what was read at once before may come on top (hyper)."""
STREAMS_MAX: Final = 64
"""At once on one HTTP/2 connection. Floods of resets are the parser's to end: 20 not yet accepted are its limit."""
PING_INTERVAL_MS: Final = 20_000
"""After this a silent HTTP/2 connection is asked whether it lives; after as long again it is closed."""
CONNECTIONS_MAX: Final = 4_096
"""At once in one server process; more wait to be accepted, at most until the slowest of these are hung up on."""
STOP_TIMEOUT_S: Final = 10
LOGS_AS_OURS: Final[dict[str, Any]] = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {},
    "formatters": {},
    "loggers": {
        "_granian": {"handlers": [], "level": "INFO", "propagate": True},
        "granian.access": {"handlers": [], "level": "WARNING", "propagate": False},
    },
}


def serve(gateway: GatewaySettings, application: str = APPLICATION) -> None:
    """Serve until SIGTERM or SIGINT, respawning a worker that dies. application: makes what one worker serves."""
    secure = bool(gateway.tls_certificate_file)
    Granian(
        application,
        factory=True,
        interface=Interfaces.ASGI,
        address=gateway.host,
        port=gateway.port,
        workers=gateway.processes,
        runtime_threads=1,
        runtime_mode=RuntimeModes.mt,
        loop=Loops.uvloop,
        # In the clear HTTP/1.1 alone: what comes through a proxy that only passes bytes on must not change protocols.
        http=HTTPModes.auto if secure else HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_TIMEOUT_MS, max_buffer_size=HEAD_BYTES_MAX),
        http2_settings=HTTP2Settings(
            keep_alive_interval=PING_INTERVAL_MS,
            keep_alive_timeout=PING_INTERVAL_MS // 1_000,
            max_concurrent_streams=STREAMS_MAX,
            max_headers_size=HEAD_BYTES_MAX,
        ),
        websockets=False,
        backlog=CONNECTIONS_MAX,
        backpressure=room_for_connections(CONNECTIONS_MAX),
        respawn_failed_workers=True,
        workers_kill_timeout=STOP_TIMEOUT_S,
        log_dictconfig=LOGS_AS_OURS,
        ssl_cert=Path(gateway.tls_certificate_file) if secure else None,
        ssl_key=Path(gateway.tls_key_file) if secure else None,
    ).serve()


def main() -> int:
    die_with_parent()
    try:
        settings = load_settings()
        configure_logging("gateway", settings.log_level)
        # What is set up wrongly stops us here, with a sentence, not in a worker that is respawned for ever.
        load_signer(settings.auth)
        check_exposure(settings.gateway)
        perimeter(settings.gateway)
        declared(settings.limits)
        serve(settings.gateway)
    except TickgateError as e:
        logging.shutdown()
        sys.stderr.write(f"error: {e}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
