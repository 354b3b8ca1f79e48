"""Every program of a local deployment: how it is started, when, on which port, and how it is stopped."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from core.infrastructure.deployment.layout import Layout


class Stage(StrEnum):
    """Started in this order and stopped in reverse. The value is the supervisor's group name."""

    ENGINES = "engines"
    SERVICES = "services"
    CONNECTORS = "connectors"


class Probe(StrEnum):
    """How to find out that a program is ready."""

    POSTGRES = "postgres"
    VALKEY = "valkey"
    CLICKHOUSE = "clickhouse"
    HTTP = "http"
    CONNECTOR = "connector"


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """arguments: after the interpreter. port: None for what only dials out. spool: a connector's."""

    name: str
    stage: Stage
    arguments: tuple[str, ...]
    probe: Probe
    settings_file: Path
    port: int | None = None
    spool: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = "TERM"
    stop_wait_s: int = 15
    drains: bool = False


# SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait for its clients to leave.
STOP_SIGNALS: Final = {"postgres": "INT"}
QUEUES: Final = ("database", "trading", "chain")


def engine_programs(layout: Layout, tree: Mapping[str, Any]) -> list[Program]:
    """Return the three engines. tree: the settings file's."""
    sections = {"postgres": "postgres", "valkey": "redis", "clickhouse": "clickhouse"}
    return [
        Program(
            name=name,
            stage=Stage.ENGINES,
            arguments=("-m", "core.cli.engine", name),
            probe=Probe(name),
            settings_file=layout.settings_file,
            port=tree[section]["port"],
            stop_signal=STOP_SIGNALS.get(name, "TERM"),
            stop_wait_s=20,
        )
        for name, section in sections.items()
    ]


def service_programs(layout: Layout, tree: Mapping[str, Any]) -> list[Program]:
    """Return the gateway, the bridge and a worker for each queue."""
    workers = tuple(
        (f"worker-{queue}", ("-m", "workers", queue), tree["worker"][f"{queue}_port"]) for queue in QUEUES
    )
    rows: Sequence[tuple[str, tuple[str, ...], int]] = (
        ("gateway", ("-m", "gateway"), tree["gateway"]["port"]),
        ("bridge", ("-m", "bridge"), tree["bridge"]["port"]),
        *workers,
    )
    return [
        Program(
            name=name,
            stage=Stage.SERVICES,
            arguments=arguments,
            probe=Probe.HTTP,
            settings_file=layout.settings_file,
            port=port,
        )
        for name, arguments, port in rows
    ]


def connector_programs(layout: Layout, sources: Sequence[str], *, drains: bool) -> list[Program]:
    """Return one connector for each source, named connector, connector-2, and so on.

    drains: ready only when it has delivered all its terminal had.
    """
    return [
        Program(
            name="connector" if number == 1 else f"connector-{number}",
            stage=Stage.CONNECTORS,
            arguments=("-m", "bridge.connector"),
            probe=Probe.CONNECTOR,
            settings_file=layout.connector_settings(source),
            spool=layout.spool(source),
            stop_wait_s=10,
            drains=drains,
        )
        for number, source in enumerate(sources, start=1)
    ]


def command(program: Program) -> list[str]:
    """Return the command line: this interpreter, with no module taken from the current directory."""
    return [sys.executable, "-P", *program.arguments]
