"""Find out whether a program of the deployment is ready, by asking it what its users ask it."""

import http.client
import json
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from core.infrastructure.deployment.ports import HOST
from core.infrastructure.deployment.programs import Probe, Program

PROBE_TIMEOUT_S: Final = 2.0
POSTGRES_SSL_REQUEST: Final = struct.pack("!II", 8, 80_877_103)
"""A server that accepts connections answers one byte to it (protocol 3.0, SSLRequest)."""
ANSWER_BYTES_MAX: Final = 16 * 1024
TEXT_LENGTH_MAX: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """ready: it does its work. problem: why not, in words. rows: how far a connector that drains has come."""

    ready: bool
    problem: str = ""
    rows: int = 0


READY: Final = Finding(ready=True)


def probe(program: Program) -> Finding:
    """Ask one program once; waits at most PROBE_TIMEOUT_S."""
    try:
        return _PROBES[program.probe](program)
    except ConnectionError:
        return Finding(ready=False, problem="does not accept connections yet")
    except (OSError, http.client.HTTPException) as e:
        return Finding(ready=False, problem=str(e) or type(e).__name__)


def _connect(program: Program) -> socket.socket:
    assert program.port is not None, f"{program.name} has a port"
    return socket.create_connection((HOST, program.port), timeout=PROBE_TIMEOUT_S)


def _postgres(program: Program) -> Finding:
    with _connect(program) as connection:
        connection.sendall(POSTGRES_SSL_REQUEST)
        return READY if connection.recv(1) else Finding(ready=False, problem="is starting")


def _valkey(program: Program) -> Finding:
    with _connect(program) as connection:
        connection.sendall(b"PING\r\n")
        answer = connection.recv(64)
    # It answers -NOAUTH without the password, and -LOADING until it can serve.
    ready = answer.startswith((b"+PONG", b"-NOAUTH"))
    return READY if ready else Finding(ready=False, problem="is loading")


def _http(program: Program, path: str) -> Finding:
    connection = http.client.HTTPConnection(HOST, program.port, timeout=PROBE_TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read(ANSWER_BYTES_MAX)
    finally:
        connection.close()
    if response.status == http.client.OK:
        return READY
    return Finding(ready=False, problem=f"answers {response.status}: {_gist(body)}")


def store_reports(program: Program) -> list[Mapping[str, Any]]:
    """Return what a worker says of its stores, nothing while it does not answer."""
    connection = http.client.HTTPConnection(HOST, program.port, timeout=PROBE_TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        told = json.loads(connection.getresponse().read(ANSWER_BYTES_MAX))
    except (OSError, http.client.HTTPException, ValueError):
        return []
    finally:
        connection.close()
    return list(told.get("stores", ()))


def _gist(body: bytes) -> str:
    return " ".join(body.decode(errors="replace").split())[:TEXT_LENGTH_MAX]


def _connector(program: Program) -> Finding:
    assert program.spool is not None, f"{program.name} has a spool"
    status = connector_status(program.spool)
    if not status:
        return Finding(ready=False, problem="has not reported yet")
    rows, state = int(status.get("acked_seq", 0)), str(status.get("state", "silent"))
    ready = bool(status.get("drained")) if program.drains else state in CONNECTED_STATES
    problem = str(status.get("problem", "")) or f"is {state}"
    return Finding(ready=ready, problem="" if ready else problem, rows=rows)


CONNECTED_STATES: Final = frozenset({"streaming", "drained"})
"""Of `bridge.connector.status`: the bridge has told it where to go on."""


def connector_status(spool: Path) -> Mapping[str, Any]:
    """Return what the connector last wrote about itself, empty when there is nothing readable."""
    try:
        status = json.loads((spool / "status.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return status if isinstance(status, dict) else {}


_PROBES: Final[Mapping[Probe, Callable[[Program], Finding]]] = {
    Probe.POSTGRES: _postgres,
    Probe.VALKEY: _valkey,
    Probe.CLICKHOUSE: lambda program: _http(program, "/ping"),
    Probe.HTTP: lambda program: _http(program, "/readyz"),
    Probe.CONNECTOR: _connector,
}
