"""A connector process with a terminal of the test's choice."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bridges import SOURCE, TOKEN
from tests.engines import wait_for
from tests.order_keys import write_order_keys

RECORDING = "bridge.connector.recording:RecordingTerminal"
SIMULATED = "bridge.connector.simulated:SimulatedTerminal"


@dataclass
class Connector:
    """One `python -m bridge.connector`."""

    spool: Path
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        self.spool.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bridge.connector"],
                env=self.environment,
                stdout=log,
                stderr=log,
                cwd=Path(__file__).parents[1],
            )

    def status(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.spool / "status.json").read_bytes()))
        except (OSError, ValueError):
            return {}

    def wait_drained(self, timeout_s: float = 60.0) -> dict[str, Any]:
        """Wait until the recording is read, acknowledged and tallied."""

        def drained() -> bool:
            assert self.process is not None
            if self.process.poll() is not None:
                raise AssertionError(f"the connector ended:\n{self.log.read_text()[-3000:]}")
            return bool(self.status().get("drained"))

        wait_for(drained, "the connector draining", timeout_s)
        return self.status()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(timeout=20)


def build_connector(
    bridge_port: int, directory: Path, terminal: str, options: dict[str, Any], **settings: Any
) -> Connector:
    """Lay out a connector that dials `bridge_port`; nothing is started."""
    directory.mkdir(parents=True, exist_ok=True)
    if settings.get("orders"):
        settings = {"order_keys_file": write_order_keys(directory)[1], **settings}
    spool = directory / "spool"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("TICKGATE_")},
        "TICKGATE_CONNECTOR_SOURCE": SOURCE,
        "TICKGATE_CONNECTOR_TOKEN": TOKEN,
        "TICKGATE_CONNECTOR_BRIDGE_URL": f"ws://127.0.0.1:{bridge_port}",
        "TICKGATE_CONNECTOR_SPOOL_DIRECTORY": str(spool),
        "TICKGATE_CONNECTOR_TERMINAL": terminal,
        "TICKGATE_CONNECTOR_TERMINAL_OPTIONS": json.dumps(options),
        **{f"TICKGATE_CONNECTOR_{name.upper()}": str(value) for name, value in settings.items()},
    }
    return Connector(spool, environment, directory / "connector.log")
