"""`python -m gateway`: serve the HTTP front door."""

import logging
import sys
from pathlib import Path
from typing import Any, Final

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops, RuntimeModes
from granian.http import HTTP1Settings

from core.errors.exceptions import TickgateError
from core.infrastructure.config_manager import load_settings
from core.infrastructure.process import die_with_parent
from core.settings import GatewaySettings
from core.telemetry.logs import configure_logging
from gateway.signing import load_signer

HEADER_TIMEOUT_MS: Final = 10_000
"""Also how long an idle connection is kept."""
CONNECTIONS_MAX: Final = 4_096
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


def serve(gateway: GatewaySettings) -> None:
    """Serve until SIGTERM or SIGINT, respawning a worker that dies."""
    secure = bool(gateway.tls_certificate_file)
    Granian(
        "gateway.app:create_app",
        factory=True,
        interface=Interfaces.ASGI,
        address=gateway.host,
        port=gateway.port,
        workers=gateway.processes,
        runtime_threads=1,
        runtime_mode=RuntimeModes.mt,
        loop=Loops.uvloop,
        http=HTTPModes.auto,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_TIMEOUT_MS),
        websockets=False,
        backlog=CONNECTIONS_MAX,
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
        serve(settings.gateway)
    except TickgateError as e:
        logging.shutdown()
        sys.stderr.write(f"error: {e}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
