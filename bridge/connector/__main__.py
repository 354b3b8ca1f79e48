"""`python -m bridge.connector`: the process that reads a terminal and brings its ticks to the bridge."""

import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import Any

from bridge.connector.service import Connector
from core.errors.exceptions import TickgateError
from core.infrastructure.config_manager import load_settings
from core.infrastructure.process import die_with_parent, keep_large_buffers
from core.settings import ConnectorSettings
from core.telemetry.logs import configure_logging


async def run(settings: ConnectorSettings) -> None:
    """Run until SIGTERM or SIGINT."""
    connector = Connector(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        if sys.platform == "win32":
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(connector.stop))
        else:
            loop.add_signal_handler(number, connector.stop)
    try:
        await connector.run()
    except TickgateError as e:
        connector.fail(str(e))
        raise


def _run(work: Coroutine[Any, Any, None]) -> None:
    if sys.platform == "win32":
        asyncio.run(work)
    else:
        from uvloop import run as run_fast  # noqa: PLC0415 - there is no uvloop on Windows

        run_fast(work)


def main() -> int:
    die_with_parent()
    keep_large_buffers()
    try:
        settings = load_settings()
        configure_logging("connector", settings.log_level)
        _run(run(settings.connector))
    except TickgateError as e:
        sys.stderr.write(f"error: {e}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
