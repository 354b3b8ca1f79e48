"""Run programs under supervisord: its configuration, its start, and what it is asked over its unix socket."""

import http.client
import os
import shlex
import socket
import subprocess
import sys
import xmlrpc.client
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from core.errors.exceptions import Unavailable
from core.infrastructure.deployment.belongings import write_private
from core.infrastructure.deployment.layout import Layout
from core.infrastructure.deployment.programs import Program, Stage, command

LOG_BYTES_MAX: Final = 10 * 1024**2
LOG_BACKUPS: Final = 3
FILES_MIN: Final = 4_096
START_RETRIES: Final = 1_000
"""Each retry waits a second longer than the last: days, so that no outage ends a program for good."""
ANSWER_TIMEOUT_S: Final = 5.0
DETACH: Final = b"D"
"""Written to supervisord's standard input when it may outlive the `up` that started it."""
ENTRY: Final = "core.infrastructure.deployment.supervisord"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessState:
    """What supervisord knows of a program. state: its word, e.g. RUNNING; pid: None unless it runs."""

    name: str
    state: str
    pid: int | None
    started_at: int
    problem: str


def render(layout: Layout, programs: Sequence[Program]) -> str:
    """Return supervisord's configuration. No secret stands in it: programs read them from settings files."""
    sections = [
        _section("unix_http_server", {"file": layout.supervisor_socket, "chmod": "0700"}),
        _section(
            "supervisord",
            {
                "logfile": layout.log("supervisord"),
                "logfile_maxbytes": LOG_BYTES_MAX,
                "logfile_backups": LOG_BACKUPS,
                "pidfile": layout.run / "supervisord.pid",
                "directory": layout.root,
                "identifier": "tickgate",
                "nodaemon": "true",
                "silent": "true",
                "nocleanup": "true",
                "umask": "077",
                "minfds": FILES_MIN,
                # Naming the user we are says that it is meant; supervisord warns about root otherwise.
                **({"user": "root"} if os.getuid() == 0 else {}),
            },
        ),
        _section(
            "rpcinterface:supervisor",
            {"supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"},
        ),
    ]
    for order, stage in enumerate(Stage, start=1):
        members = [program for program in programs if program.stage is stage]
        if members:
            names = ",".join(program.name for program in members)
            sections.append(_section(f"group:{stage}", {"programs": names, "priority": order * 100}))
            sections.extend(_program_section(layout, program) for program in members)
    return "\n".join(sections)


def _program_section(layout: Layout, program: Program) -> str:
    environment = {"TICKGATE_SETTINGS_FILE": str(program.settings_file), **program.environment}
    return _section(
        f"program:{program.name}",
        {
            "command": shlex.join(command(program)),
            "environment": ",".join(f'{name}="{value}"' for name, value in environment.items()),
            "directory": layout.root,
            "autostart": "true" if program.stage is Stage.ENGINES else "false",
            "autorestart": "true",
            "startsecs": 1,
            "startretries": START_RETRIES,
            "stopsignal": program.stop_signal,
            "stopwaitsecs": program.stop_wait_s,
            "killasgroup": "true",
            "redirect_stderr": "true",
            # Relative, because supervisord expands this field twice and a "%" would not survive.
            "stdout_logfile": layout.log(program.name).relative_to(layout.root),
            "stdout_logfile_maxbytes": LOG_BYTES_MAX,
            "stdout_logfile_backups": LOG_BACKUPS,
        },
    )


def _section(name: str, fields: Mapping[str, object]) -> str:
    lines = [f"{key} = {str(value).replace('%', '%%')}" for key, value in fields.items()]
    return "\n".join([f"[{name}]", *lines, ""])


def write_config(layout: Layout, programs: Sequence[Program]) -> None:
    """Write supervisord's configuration, readable by its owner alone."""
    write_private(layout.supervisor_config, render(layout, programs))


def launch(layout: Layout, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start supervisord in a session of its own; it stops when our end of its standard input closes."""
    output = os.open(layout.log("supervisord.out"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", ENTRY, "-c", str(layout.supervisor_config)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=dict(environment),
            cwd=layout.root,
            start_new_session=True,
        )
    finally:
        os.close(output)


class Supervisor:
    """supervisord, asked over its socket. Every method raises Unavailable when it does not answer."""

    def __init__(self, address: Path) -> None:
        self._address = address

    def pid(self) -> int:
        return int(self._ask(lambda proxy: proxy.supervisor.getPID()))

    def states(self) -> dict[str, ProcessState]:
        """Return every program by name."""
        rows = self._ask(lambda proxy: proxy.supervisor.getAllProcessInfo())
        return {row["name"]: _state(row) for row in rows}

    def start(self, stage: Stage) -> None:
        """Start a stage's programs; returns at once."""
        self._ask(lambda proxy: proxy.supervisor.startProcessGroup(str(stage), False))

    def shutdown(self) -> None:
        """Ask for an orderly stop; returns at once."""
        self._ask(lambda proxy: proxy.supervisor.shutdown())

    def _ask(self, question: Callable[[Any], Any]) -> Any:
        transport = _Transport(self._address)
        proxy = xmlrpc.client.ServerProxy("http://localhost/RPC2", transport=transport)
        try:
            return question(proxy)
        except xmlrpc.client.Fault as e:
            raise Unavailable(f"the supervisor refused: {e.faultString}", code="SUPERVISOR_REFUSED") from e
        except (OSError, xmlrpc.client.Error, ValueError, EOFError) as e:
            raise Unavailable("the supervisor does not answer", code="SUPERVISOR_SILENT") from e
        finally:
            transport.close()


def _state(row: Mapping[str, Any]) -> ProcessState:
    return ProcessState(
        name=row["name"],
        state=row["statename"],
        pid=row["pid"] or None,
        started_at=row["start"],
        problem=row["spawnerr"],
    )


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, address: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_TIMEOUT_S)
        self._address = str(address)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._address)


class _Transport(xmlrpc.client.Transport):
    def __init__(self, address: Path) -> None:
        super().__init__()
        self._address = address

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        return _Connection(self._address)
